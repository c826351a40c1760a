// The admin steps of README.md with the Java client.

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.protocol.Errors;

final class AdminSteps {
    private static final String KEEP_MS = "315360000000";
    private static final String KEEP_LONGER_MS = "946080000000";
    private static final long DELETE_BEFORE = 50;

    private final Admin admin;
    private final String topic;
    private final TopicPartition first;
    private final String group;
    private final long timeMs;

    private AdminSteps(Admin admin, String topic, String old, String group, long timeMs) {
        this.admin = admin;
        this.topic = topic;
        this.first = new TopicPartition(old, 0);
        this.group = group;
        this.timeMs = timeMs;
    }

    static void run(
            String bootstrap, String topic, String old, String group, long timeMs) {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", (Object) bootstrap))) {
            new AdminSteps(admin, topic, old, group, timeMs).all();
        }
    }

    private void all() {
        step("create-topic", this::create);
        step("create-again", this::create);
        step("list-topics", () -> until(true, this::known));
        step("describe-topic", this::partitions);
        step("create-partitions", () -> {
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            return until(5, this::partitions);
        });
        step("describe-configs", this::retention);
        step("alter-configs", this::alter);
        step("list-offsets", () -> offset(OffsetSpec.earliest()) + " "
            + offset(OffsetSpec.latest()) + " " + offset(OffsetSpec.forTimestamp(timeMs)));
        step("delete-records", () -> {
            var before = RecordsToDelete.beforeOffset(DELETE_BEFORE);
            admin.deleteRecords(Map.of(first, before)).all().get();
            return until(DELETE_BEFORE, () -> offset(OffsetSpec.earliest()));
        });
        step("list-groups", this::listed);
        step("describe-group", () -> admin.describeConsumerGroups(List.of(group))
            .all().get().get(group).groupState());
        step("committed-offsets", () -> admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata().get().get(first).offset());
        step("delete-group", () -> {
            admin.deleteConsumerGroups(List.of(group)).all().get();
            return until(false, this::listed);
        });
        step("delete-topic", () -> {
            admin.deleteTopics(List.of(topic)).all().get();
            return until(false, this::known);
        });
    }

    private static void step(String name, Callable<Object> doing) {
        String result;
        try {
            result = String.valueOf(doing.call());
        } catch (Exception error) {
            result = "failed: " + String.valueOf(error).replace('\n', ' ');
        }
        System.out.println(name + " " + result);
        System.out.flush();
    }

    // Asks until the answer is the wanted one, for 10 s; returns the last answer.
    private static <T> T until(T wanted, Callable<T> ask) throws Exception {
        for (int turn = 0; turn < 50; turn++) {
            if (wanted.equals(ask.call())) {
                break;
            }
            Thread.sleep(200);
        }
        return ask.call();
    }

    private Object create() throws Exception {
        var wanted = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", KEEP_MS));
        try {
            admin.createTopics(List.of(wanted)).all().get();
            return "ok";
        } catch (ExecutionException error) {
            if (error.getCause() instanceof ApiException refused) {
                return Errors.forException(refused).code();
            }
            throw error;
        }
    }

    private boolean known() throws Exception {
        return admin.listTopics().names().get().contains(topic);
    }

    private int partitions() throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic)
            .partitions().size();
    }

    private String retention() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        return Optional.ofNullable(config.get("retention.ms")).map(ConfigEntry::value).orElse("");
    }

    private String alter() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var entry = new ConfigEntry("retention.ms", KEEP_LONGER_MS);
        var change = new AlterConfigOp(entry, AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
        return until(KEEP_LONGER_MS, this::retention);
    }

    private long offset(OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(first, spec)).partitionResult(first).get().offset();
    }

    private boolean listed() throws Exception {
        return admin.listGroups().all().get().stream()
            .anyMatch(listing -> listing.groupId().equals(group));
    }
}
