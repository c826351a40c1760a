// The Java client behind the common command line of README.md.

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.clients.admin.RaftVoterEndpoint;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Client {
    private static final Pattern RECORD = Pattern.compile(
        "\\{\"key\": (null|\"[^\"]*\"), \"value\": (null|\"[^\"]*\"), "
            + "\"headers\": \\[(.*)\\], \"timestamp\": (\\d+)\\}");
    private static final Pattern HEADER = Pattern.compile("\\[\"([^\"]*)\", (null|\"[^\"]*\")\\]");

    public static void main(String[] args) throws Exception {
        // Idempotence is this client's default.
        if (args[0].equals("produce") || args[0].equals("idempotent")) {
            produce(args[1], args[2], args[3], args[4]);
        } else if (args[0].equals("group")) {
            new Member(args[2], args[4])
                .run(args[1], args[3], args.length < 6 ? "classic" : args[5]);
        } else if (args[0].equals("admin")) {
            AdminSteps.run(args[1], args[2], args[3], args[4], Long.parseLong(args[5]));
        } else if (args[0].equals("quorum")) {
            quorum(args[1], List.of(args).subList(2, args.length));
        } else {
            consume(args[1], args[2], args[3], Integer.parseInt(args[4]));
        }
    }

    // Prints the metadata group, after a change of its voters if one is named.
    private static void quorum(String bootstrap, List<String> change) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", (Object) bootstrap))) {
            if (!change.isEmpty()) {
                int id = Integer.parseInt(change.get(1));
                Uuid directory = Uuid.fromString(change.get(2));
                var endpoint = new RaftVoterEndpoint("CONTROLLER", "localhost", 9);
                switch (change.get(0)) {
                    case "add" -> admin.addRaftVoter(id, directory, Set.of(endpoint)).all().get();
                    case "remove" -> admin.removeRaftVoter(id, directory).all().get();
                    default -> throw new IllegalArgumentException(change.get(0));
                }
            }
            QuorumInfo info = admin.describeMetadataQuorum().quorumInfo().get();
            System.out.println("leader " + info.leaderId() + " " + info.leaderEpoch() + " "
                + info.highWatermark());
            info.voters().forEach(voter -> member("voter", voter));
            info.observers().forEach(observer -> member("observer", observer));
        }
    }

    private static void member(String role, QuorumInfo.ReplicaState state) {
        System.out.println(role + " " + state.replicaId() + " " + state.replicaDirectoryId() + " "
            + state.logEndOffset());
    }

    private static byte[] decode(String text) {
        return text.equals("null")
            ? null : Base64.getDecoder().decode(text.substring(1, text.length() - 1));
    }

    private static String encode(byte[] bytes) {
        return bytes == null ? "null" : '"' + Base64.getEncoder().encodeToString(bytes) + '"';
    }

    private static void produce(String bootstrap, String topic, String codec, String path)
            throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("compression.type", codec);
        settings.put("max.request.size", "2000000");
        List<Future<RecordMetadata>> acks = new ArrayList<>();
        try (var producer = new KafkaProducer<>(
                settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line : Files.readAllLines(Path.of(path))) {
                Matcher record = RECORD.matcher(line);
                if (!record.matches()) {
                    throw new IllegalArgumentException("not a record: " + line);
                }
                var out = new ProducerRecord<>(topic, 0, Long.parseLong(record.group(4)),
                    decode(record.group(1)), decode(record.group(2)));
                Matcher headers = HEADER.matcher(record.group(3));
                while (headers.find()) {
                    out.headers().add(headers.group(1), decode(headers.group(2)));
                }
                acks.add(producer.send(out));
            }
            for (Future<RecordMetadata> ack : acks) {
                System.out.println(ack.get().offset());
            }
        }
    }

    private static void consume(String bootstrap, String topic, String group, int count) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        StringBuilder out = new StringBuilder();
        try (var consumer = new KafkaConsumer<>(
                settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            int seen = 0;
            long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (seen < count) {
                if (deadline < System.nanoTime()) {
                    throw new IllegalStateException("only " + seen + " of " + count + " records");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    print(out, record);
                    seen++;
                }
            }
        }
        System.out.print(out);
    }

    private static void print(StringBuilder out, ConsumerRecord<byte[], byte[]> record) {
        out.append("{\"key\": ").append(encode(record.key()));
        out.append(", \"value\": ").append(encode(record.value()));
        out.append(", \"headers\": [");
        String separator = "";
        for (Header header : record.headers()) {
            out.append(separator).append("[\"").append(header.key()).append("\", ");
            out.append(encode(header.value())).append(']');
            separator = ", ";
        }
        out.append("], \"timestamp\": ").append(record.timestamp());
        out.append(", \"offset\": ").append(record.offset()).append("}\n");
    }
}
