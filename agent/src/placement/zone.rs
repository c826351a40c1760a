//! Which zone a client is in [pure], because most requests have no field for it.

use std::{fmt, net::IpAddr, str::FromStr};

/// Names of the tag that carries a zone inside a client id: ours and those of other systems whose
/// clients come here unchanged.
const TAGS: [&str; 6] =
    ["aquifer_zone", "zone", "ws_az", "warpstream_az", "automq_az", "diskless_az"];

/// The zone that a client id names in a tag such as `app,zone=eu-west-1a`; tags are separated by
/// commas, semicolons, ampersands or blanks.
pub fn of_client_id(client_id: &str) -> Option<&str> {
    let tags = client_id.split([',', ';', '&', ' ']).filter_map(|tag| tag.split_once('='));
    tags.filter(|(name, zone)| TAGS.contains(name) && !zone.is_empty()).map(|(_, zone)| zone).next()
}

/// Address blocks of zones, the most specific first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneBlocks(Vec<ZoneBlock>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ZoneBlock {
    network: IpAddr,
    prefix: u32,
    zone: String,
}

impl ZoneBlocks {
    /// The zone of the smallest block that holds `address`.
    pub fn zone_of(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        self.0.iter().find(|block| block.holds(address)).map(|block| block.zone.as_str())
    }
}

impl ZoneBlock {
    fn holds(&self, address: IpAddr) -> bool {
        let (bits, network, address) = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (32, u128::from(network.to_bits()), u128::from(address.to_bits()))
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (128, network.to_bits(), address.to_bits())
            }
            _ => return false,
        };
        // A block of everything would shift by the full width.
        (network ^ address).checked_shr(bits - self.prefix).unwrap_or(0) == 0
    }
}

impl FromStr for ZoneBlocks {
    type Err = String;

    /// Parses `10.0.0.0/16=zone-a,10.1.0.0/16=zone-b`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut blocks = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || format!("{part:?} is not ADDRESS/PREFIX=ZONE");
            let (block, zone) = part.split_once('=').ok_or_else(wrong)?;
            let (network, prefix) = block.split_once('/').ok_or_else(wrong)?;
            let network: IpAddr = network.parse().map_err(|_| wrong())?;
            let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
            let width = if network.is_ipv4() { 32 } else { 128 };
            if width < prefix || zone.is_empty() {
                return Err(wrong());
            }
            blocks.push(ZoneBlock { network, prefix, zone: zone.to_owned() });
        }
        blocks.sort_by_key(|block| std::cmp::Reverse(block.prefix));
        Ok(Self(blocks))
    }
}

impl fmt::Display for ZoneBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, ZoneBlock { network, prefix, zone }) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{network}/{prefix}={zone}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_names_its_zone_in_any_known_dialect() {
        assert_eq!(of_client_id("ws_az=us-east-1a"), Some("us-east-1a"));
        assert_eq!(of_client_id("orders,zone=b;x=1"), Some("b"));
        assert_eq!(of_client_id("app automq_az=c&diskless_az=d"), Some("c"));
        for without in ["", "zone", "zone=", "myzone=a", "rdkafka", "=a"] {
            assert_eq!(of_client_id(without), None, "{without}");
        }
    }

    #[test]
    fn the_smallest_block_that_holds_an_address_names_its_zone() {
        let blocks: ZoneBlocks =
            "0.0.0.0/0=far, 10.0.0.0/8=a,10.1.0.0/16=b,10.1.2.3/32=c,fd00::/8=six".parse().unwrap();
        let zone = |address: &str| blocks.zone_of(address.parse().unwrap());
        assert_eq!(zone("10.2.0.1"), Some("a"));
        assert_eq!(zone("10.1.2.4"), Some("b"));
        assert_eq!(zone("10.1.2.3"), Some("c"));
        assert_eq!(zone("::ffff:10.1.2.3"), Some("c"));
        assert_eq!(zone("11.0.0.1"), Some("far"));
        assert_eq!(zone("fd12::1"), Some("six"));
        assert_eq!(zone("fe80::1"), None);
        assert_eq!(blocks.to_string().parse(), Ok(blocks));
    }

    #[test]
    fn a_malformed_block_is_named() {
        for wrong in ["10.0.0.0=a", "10.0.0.0/33=a", "10.0.0/8=a", "10.0.0.0/8=", "x/8=a"] {
            let error = wrong.parse::<ZoneBlocks>().unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
