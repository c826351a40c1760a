import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A consumer of the group with the client's defaults, polled by a thread of its own. */
final class RebalanceMember implements ConsumerRebalanceListener {
    private static final Duration POLL = Duration.ofMillis(100);

    private final int id;
    private final String topic;
    private final RebalanceWatch watch;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Thread thread;
    private volatile boolean leaves;

    /** `protocol` is consumer, cooperative or eager. */
    RebalanceMember(int id, String bootstrap, String topic, String protocol, RebalanceWatch watch) {
        this.id = id;
        this.topic = topic;
        this.watch = watch;
        this.consumer = new KafkaConsumer<>(settings(bootstrap, topic, protocol),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
        this.thread = new Thread(this::read, "member-" + id);
    }

    private static Properties settings(String bootstrap, String topic, String protocol) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", topic);
        settings.put("auto.offset.reset", "earliest");
        settings.put("group.protocol", protocol.equals("consumer") ? "consumer" : "classic");
        String assignors = "org.apache.kafka.clients.consumer.";
        switch (protocol) {
            case "consumer" -> { }
            case "cooperative" -> settings.put("partition.assignment.strategy",
                assignors + "CooperativeStickyAssignor");
            case "eager" -> settings.put("partition.assignment.strategy",
                assignors + "RangeAssignor");
            default -> throw new IllegalArgumentException(protocol);
        }
        return settings;
    }

    int id() {
        return id;
    }

    /** Joins. */
    void start() {
        thread.start();
    }

    /** Leaves as close() does; returns at once. */
    void leave() {
        leaves = true;
        consumer.wakeup();
    }

    /** Waits until it left. */
    void join() throws InterruptedException {
        thread.join();
    }

    private void read() {
        try (consumer) {
            consumer.subscribe(List.of(topic), this);
            while (!leaves) {
                var records = consumer.poll(POLL);
                long now = System.nanoTime();
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    watch.delivered(record.partition(), record.offset(), now);
                }
                watch.polled();
            }
        } catch (WakeupException wakeup) {
            if (!leaves) {
                throw wakeup;
            }
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        watch.assigned(id, partitions, System.nanoTime());
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        watch.revoked(id, partitions, System.nanoTime());
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        watch.revoked(id, partitions, System.nanoTime());
    }
}
