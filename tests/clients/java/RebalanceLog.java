import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.Set;
import org.apache.kafka.common.TopicPartition;

/** Who owns each partition since when, and when each of its records was delivered first. */
final class RebalanceLog implements RebalanceWatch {
    static final int NOBODY = -1;

    private final int[] owners;
    private final long[] changed;
    private final long[] nextOffsets;
    private final long[][] deliveries;
    private final int[] counts;
    private final Set<Integer> dead = new HashSet<>();

    RebalanceLog(int partitions) {
        owners = new int[partitions];
        Arrays.fill(owners, NOBODY);
        changed = new long[partitions];
        Arrays.fill(changed, System.nanoTime());
        nextOffsets = new long[partitions];
        deliveries = new long[partitions][1024];
        counts = new int[partitions];
    }

    @Override
    public synchronized void assigned(int member, Collection<TopicPartition> of, long nanos) {
        if (!dead.contains(member)) {
            of.forEach(one -> become(one.partition(), member, nanos));
        }
    }

    @Override
    public synchronized void revoked(int member, Collection<TopicPartition> of, long nanos) {
        for (TopicPartition one : of) {
            // Who lost it may learn so after another one has it.
            if (owners[one.partition()] == member) {
                become(one.partition(), NOBODY, nanos);
            }
        }
    }

    private void become(int partition, int owner, long nanos) {
        owners[partition] = owner;
        changed[partition] = nanos;
        notifyAll();
    }

    /** The member was killed: it says no more, and owns nothing. */
    synchronized void died(int member, long nanos) {
        dead.add(member);
        for (int partition = 0; partition < owners.length; partition++) {
            if (owners[partition] == member) {
                become(partition, NOBODY, nanos);
            }
        }
    }

    /** A record that is read again is no progress. */
    @Override
    public synchronized void delivered(int partition, long offset, long nanos) {
        if (offset < nextOffsets[partition]) {
            return;
        }
        nextOffsets[partition] = offset + 1;
        int count = counts[partition];
        if (count == deliveries[partition].length) {
            deliveries[partition] = Arrays.copyOf(deliveries[partition], 2 * count);
        }
        // Two members may tell of one partition out of turn, by less than a poll.
        long last = count == 0 ? nanos : deliveries[partition][count - 1];
        deliveries[partition][count] = Math.max(last, nanos);
        counts[partition]++;
    }

    synchronized int[] owners() {
        return owners.clone();
    }

    /**
     * Since when all partitions are owned by these members, by none more than one more than by
     * another, and each was read from; -1 while it is not so.
     */
    synchronized long stableSince(Set<Integer> members, long event) {
        long since = event;
        for (int partition = 0; partition < owners.length; partition++) {
            if (!members.contains(owners[partition])) {
                return -1;
            }
            long flows = firstAfter(partition, Math.max(event, changed[partition]));
            if (flows == -1) {
                return -1;
            }
            since = Math.max(since, flows);
        }
        var held = members.stream()
            .mapToLong(member -> Arrays.stream(owners).filter(owner -> owner == member).count())
            .summaryStatistics();
        return held.getMax() - held.getMin() <= 1 ? since : -1;
    }

    private long firstAfter(int partition, long nanos) {
        int at = Arrays.binarySearch(deliveries[partition], 0, counts[partition], nanos);
        int next = at < 0 ? -at - 1 : at + 1;
        return next < counts[partition] ? deliveries[partition][next] : -1;
    }

    /** The longest time without a record of the partition that ended after `from`, by `to`. */
    synchronized long longestGap(int partition, long from, long to) {
        long longest = 0;
        for (int next = 1; next < counts[partition]; next++) {
            long end = deliveries[partition][next];
            if (from < end && end <= to) {
                longest = Math.max(longest, end - deliveries[partition][next - 1]);
            }
        }
        return longest;
    }
}
