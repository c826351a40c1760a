import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;

/**
 * What a group's readers feel when one joins, leaves or is killed: `tests/benches/run --only
 * rebalance`. Prints one line of JSON per event, in milliseconds.
 *
 * <p>An event is over when every partition is owned, by no member more than one more than
 * by another, and a record of each was delivered under its owner; it must stay so for a while. A
 * pause is the longest gap between records of a partition about the event, less the longest in a
 * usual second before it. What others do to the machine is in it, and seen where nothing happens.
 * Between two events passes a random time, so that none comes at the same place between heartbeats
 * each time.
 */
public final class Rebalance {
    private static final int MEMBERS = 10;
    private static final int PARTITIONS = 100;
    private static final int RECORDS_PER_SECOND = 20;
    private static final long MILLIS = 1_000_000;
    private static final long SECOND = 1_000 * MILLIS;
    private static final long SETTLED_FOR = 5 * SECOND;
    private static final long QUIET_SPREAD_MS = 5_000;
    private static final long TAIL = SECOND;
    private static final long EVENT_MAX = 150 * SECOND;

    private final String bootstrap;
    private final String topic;
    private final String protocol;
    private final RebalanceLog log = new RebalanceLog(PARTITIONS);
    private final ArrayDeque<RebalanceMember> members = new ArrayDeque<>();
    private final Random random = new Random(1);
    private int nextMember;

    private Rebalance(String bootstrap, String topic, String protocol) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.protocol = protocol;
    }

    /** BOOTSTRAP TOPIC consumer|cooperative|eager ROUNDS KILLS. */
    public static void main(String[] args) throws Exception {
        var group = new Rebalance(args[0], args[1], args[2]);
        int rounds = Integer.parseInt(args[3]);
        int kills = Integer.parseInt(args[4]);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", (Object) args[0]))) {
            var wanted = new NewTopic(args[1], PARTITIONS, (short) 1);
            admin.createTopics(List.of(wanted)).all().get();
        }
        try (var producer = new RebalanceProducer(args[0], args[1], PARTITIONS,
                RECORDS_PER_SECOND)) {
            group.run(rounds, kills);
            System.out.println("{\"failed_sends\": " + producer.failures() + "}");
        }
        System.exit(0); // Members that are left would read for ever.
    }

    private void run(int rounds, int kills) throws Exception {
        List<RebalanceVictim> victims = new ArrayList<>();
        for (int victim = 0; victim < kills; victim++) {
            victims.add(new RebalanceVictim(1000 + victim, bootstrap, topic, protocol, log));
        }
        for (int member = 0; member < MEMBERS; member++) {
            newMember().start();
        }
        settle(ids(), System.nanoTime());
        for (int round = 0; round < rounds; round++) {
            // What is seen without an event: the noise of all other figures.
            observe("nothing", ids(), () -> { });
            RebalanceMember added = newMember();
            observe("join", ids(), added::start);
            // Who has been in for longest: a classic group loses its leader with it.
            RebalanceMember leaver = members.removeFirst();
            observe("leave", ids(), leaver::leave);
            leaver.join();
        }
        for (RebalanceVictim victim : victims) {
            Set<Integer> all = ids();
            all.add(victim.id());
            long joined = System.nanoTime();
            victim.start();
            settle(all, joined);
            observe("kill", ids(), () -> {
                long now = System.nanoTime();
                victim.kill();
                log.died(victim.id(), now);
            });
        }
    }

    private RebalanceMember newMember() {
        var member = new RebalanceMember(nextMember++, bootstrap, topic, protocol, log);
        members.add(member);
        return member;
    }

    private Set<Integer> ids() {
        return members.stream().map(RebalanceMember::id)
            .collect(Collectors.toCollection(HashSet::new));
    }

    private interface Event {
        void happen() throws Exception;
    }

    /** Waits until the group is stable and stays so; returns since when it is. */
    private long settle(Set<Integer> expected, long event) throws InterruptedException {
        while (System.nanoTime() < event + EVENT_MAX) {
            long since = log.stableSince(expected, event);
            if (since != -1 && since + SETTLED_FOR < System.nanoTime()) {
                return since;
            }
            TimeUnit.MILLISECONDS.sleep(20);
        }
        throw new IllegalStateException("not stable after " + EVENT_MAX / MILLIS + " ms, owners "
            + Arrays.toString(log.owners()));
    }

    private void observe(String name, Set<Integer> after, Event event) throws Exception {
        TimeUnit.MILLISECONDS.sleep(random.nextLong(QUIET_SPREAD_MS));
        int[] before = log.owners();
        long at = System.nanoTime();
        event.happen();
        long stable = settle(after, at);
        int[] owners = log.owners();
        List<Long> moved = new ArrayList<>();
        List<Long> kept = new ArrayList<>();
        for (int partition = 0; partition < PARTITIONS; partition++) {
            long quiet = quiet(partition, at);
            // One that is open when it comes is the event's.
            long gap = log.longestGap(partition, at, stable + TAIL);
            (owners[partition] == before[partition] ? kept : moved).add(Math.max(0, gap - quiet));
        }
        System.out.println("{\"event\": \"" + name + "\", \"stable_ms\": " + millis(stable - at)
            + ", \"moved\": " + list(moved) + ", \"kept\": " + list(kept) + "}");
    }

    /** The longest gap of a second, the median of those seconds in which all was settled. */
    private long quiet(int partition, long until) {
        long[] longest = LongStream.range(0, SETTLED_FOR / SECOND)
            .map(second -> until - second * SECOND)
            .map(end -> log.longestGap(partition, end - SECOND, end))
            .sorted().toArray();
        return longest[longest.length / 2];
    }

    private static String millis(long nanos) {
        return String.valueOf(Math.round(nanos / 1e5) / 10.0);
    }

    private static String list(List<Long> nanos) {
        return nanos.stream().map(Rebalance::millis)
            .collect(Collectors.joining(", ", "[", "]"));
    }
}
