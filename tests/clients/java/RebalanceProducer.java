import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writes a record to every partition at a fixed rate. */
final class RebalanceProducer implements AutoCloseable {
    private static final int RECORD_BYTES = 100;

    private final KafkaProducer<byte[], byte[]> producer;
    private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    private final AtomicLong failures = new AtomicLong();

    RebalanceProducer(String bootstrap, String topic, int partitions, int perSecond)
            throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        producer = new KafkaProducer<>(
            settings, new ByteArraySerializer(), new ByteArraySerializer());
        byte[] value = new byte[RECORD_BYTES];
        // Kafka's leaders of a new topic come one by one. A second batch that overtakes the first
        // is taken, and then the first is refused until it is given up after two minutes.
        List<Future<RecordMetadata>> first = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            first.add(producer.send(new ProducerRecord<>(topic, partition, null, value)));
        }
        for (Future<RecordMetadata> ack : first) {
            ack.get();
        }
        Runnable round = () -> {
            for (int partition = 0; partition < partitions; partition++) {
                producer.send(new ProducerRecord<>(topic, partition, null, value), (at, error) -> {
                    if (error != null && failures.incrementAndGet() == 1) {
                        System.err.println("a record was not written: " + error);
                    }
                });
            }
        };
        timer.scheduleAtFixedRate(round, 0, 1_000_000 / perSecond, TimeUnit.MICROSECONDS);
    }

    /** Records that were refused or given up. */
    long failures() {
        return failures.get();
    }

    @Override
    public void close() throws InterruptedException {
        timer.shutdown();
        timer.awaitTermination(10, TimeUnit.SECONDS);
        producer.close();
    }
}
