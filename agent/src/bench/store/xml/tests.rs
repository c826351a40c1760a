//! Laws of the XML.

use super::*;

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, iso, http) in [
        (0, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_782_399, "2000-02-28T23:59:59.000Z", "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_868_799, "2000-02-29T23:59:59.000Z", "Tue, 29 Feb 2000 23:59:59 GMT"),
        (951_868_800, "2000-03-01T00:00:00.000Z", "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_798_761_599, "2026-12-31T23:59:59.000Z", "Thu, 31 Dec 2026 23:59:59 GMT"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
    ] {
        assert_eq!((iso_date(seconds).as_str(), http_date(seconds).as_str()), (iso, http));
    }
}

#[test]
fn a_token_gives_its_key_back_and_no_other_text_does() {
    for key in ["", "a", "wal/ä/1"] {
        assert_eq!(key_of_token(&token_of(key)).as_deref(), Some(key));
    }
    for token in ["a", "zz", "ff", "6", "ä"] {
        assert_eq!(key_of_token(token), None, "{token}");
    }
}

#[test]
fn a_bulk_delete_names_its_keys() {
    let body = "<Delete xmlns=\"x\"><Object><Key>a&amp;b</Key></Object>\
                <Object><Key>c&#x20;d&#33;</Key><VersionId>1</VersionId></Object>\
                <Quiet>true</Quiet></Delete>";
    assert_eq!(keys_to_delete(body), Some(vec!["a&b".to_owned(), "c d!".to_owned()]));
    for body in [
        "",
        "<Delete/>",
        "<Object><Key>a</Key>",
        "<Object><Key>a</Object>",
        "<Object></Object>",
        "<Object><Key>&</Key></Object>",
        "<Object><Key>&#xd800;</Key></Object>",
        "<Object><Key>&#99999999999;</Key></Object>",
    ] {
        assert_eq!(keys_to_delete(body), None, "{body}");
    }
    let object = "<Object><Key>a</Key></Object>";
    assert_eq!(keys_to_delete(&object.repeat(1000)).unwrap().len(), 1000);
    assert_eq!(keys_to_delete(&object.repeat(1001)), None);
}

#[test]
fn text_survives_being_escaped() {
    let text = "<a href=\"x\">&amp;\n\u{1}ä</a>";
    assert_eq!(unescaped(&escaped(text)).as_deref(), Some(text));
    assert!(!escaped(text).contains(['<', '>', '"', '\n']));
    assert_eq!(url_encoded("a b/ä+~"), "a%20b/%C3%A4%2B~");
}

#[test]
fn a_listing_spells_its_keys_as_asked() {
    let page = Page {
        entries: vec![Entry {
            key: "p/a&b".to_owned(),
            object_bytes: 7,
            etag: "\"e\"".to_owned(),
            modified_s: 0,
        }],
        common_prefixes: vec!["p/c d/".to_owned()],
        next_after: Some("p".to_owned()),
    };
    let mut request =
        ListRequest { bucket: "b", prefix: "p/", keys_max: 2, delimiter: "/", url_encoded: false };
    let body = list_result(request, &page);
    for piece in [
        "<Key>p/a&amp;b</Key>",
        "<Size>7</Size>",
        "<ETag>&quot;e&quot;</ETag>",
        "<KeyCount>2</KeyCount>",
        "<IsTruncated>true</IsTruncated>",
        "<NextContinuationToken>70</NextContinuationToken>",
        "<CommonPrefixes><Prefix>p/c d/</Prefix></CommonPrefixes>",
    ] {
        assert!(body.contains(piece), "{piece}: {body}");
    }
    request.url_encoded = true;
    let body = list_result(request, &page);
    assert!(body.contains("<Key>p/a%26b</Key>") && body.contains("<Prefix>p/c%20d/</Prefix>"));
}

#[test]
fn every_injected_status_has_the_code_of_s3() {
    for (status, code) in [
        (403, "AccessDenied"),
        (404, "NoSuchBucket"),
        (500, "InternalError"),
        (502, "InternalError"),
        (503, "SlowDown"),
        (504, "ServiceUnavailable"),
    ] {
        let error = S3Error::of_status(status);
        assert_eq!((error.status, error.code), (status, code));
        let body = error.body("/b/<k>");
        assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
        assert!(body.contains("<Resource>/b/&lt;k&gt;</Resource>"), "{body}");
    }
}
