// The command `group` of README.md.

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a group: reads until the file `stop` exists, then leaves. Prints "assigned P,P" at
 * each change of what it holds, "record P OFFSET VALUE" once a record is committed, and "refused
 * ERROR" when a commit is not taken. While the file `stop`.hold exists it keeps what it read, and
 * says "holding N".
 */
final class Member implements ConsumerRebalanceListener {
    private final String topic;
    private final Path stop;
    private final Path hold;
    private final Set<Integer> held = new TreeSet<>();
    /** Read, and not committed yet. */
    private final List<ConsumerRecord<byte[], byte[]>> pending = new ArrayList<>();

    Member(String topic, String stop) {
        this.topic = topic;
        this.stop = Path.of(stop);
        this.hold = Path.of(stop + ".hold");
    }

    private static Properties settings(String protocol) {
        Properties settings = new Properties();
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("group.protocol", protocol.equals("consumer") ? "consumer" : "classic");
        if (!protocol.equals("consumer")) { // In the new protocol these are the broker's to say.
            settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer."
                + (protocol.equals("cooperative") ? "CooperativeSticky" : "Range") + "Assignor");
            settings.put("session.timeout.ms", "6000");
            settings.put("heartbeat.interval.ms", "500");
        }
        // Else it forgets its topics while its only broker is away, and as leader rebalances.
        settings.put("metadata.recovery.strategy", "none");
        return settings;
    }

    void run(String bootstrap, String group, String protocol) throws InterruptedException {
        Properties settings = settings(protocol);
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        try (var consumer = new KafkaConsumer<>(
                settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            // A name that begins with ^ is an expression.
            if (topic.startsWith("^")) {
                consumer.subscribe(new SubscriptionPattern(topic), this);
            } else {
                consumer.subscribe(List.of(topic), this);
            }
            while (!Files.exists(stop)) {
                consumer.poll(Duration.ofMillis(100)).forEach(pending::add);
                if (!pending.isEmpty()) {
                    commit(consumer);
                }
            }
        }
    }

    private void commit(Consumer<byte[], byte[]> consumer) throws InterruptedException {
        if (Files.exists(hold)) {
            say("holding " + pending.size());
        }
        while (Files.exists(hold)) {
            Thread.sleep(20);
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (ConsumerRecord<byte[], byte[]> record : pending) {
            offsets.put(new TopicPartition(record.topic(), record.partition()),
                new OffsetAndMetadata(record.offset() + 1));
        }
        try {
            consumer.commitSync(offsets);
        } catch (CommitFailedException | RebalanceInProgressException refused) {
            // The next poll says whether its partitions are still its own.
            say("refused " + refused.getClass().getSimpleName());
            return;
        }
        for (ConsumerRecord<byte[], byte[]> record : pending) {
            say("record " + record.partition() + " " + record.offset() + " "
                + new String(record.value()));
        }
        pending.clear();
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions.forEach(one -> held.add(one.partition()));
        tell();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        partitions.forEach(one -> held.remove(one.partition()));
        // Whoever holds these next reads what was not committed again.
        pending.removeIf(one -> partitions.contains(
            new TopicPartition(one.topic(), one.partition())));
        tell();
    }

    private void tell() {
        say("assigned " + held.stream().map(String::valueOf).collect(Collectors.joining(",")));
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
