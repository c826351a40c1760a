import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.kafka.common.TopicPartition;

/**
 * A member in a process of its own, to be killed. Its process is started ahead; it joins when a
 * line comes. What its watch is told it prints, with times that all processes have in common.
 */
final class RebalanceVictim {
    private final int id;
    private final Process process;
    private final Thread listener;

    /** The victim's process. */
    public static void main(String[] args) throws IOException {
        var out = new PrintStream(
            new FileOutputStream(FileDescriptor.out), false, StandardCharsets.US_ASCII);
        var member = new RebalanceMember(Integer.parseInt(args[0]), args[1], args[2], args[3],
            new Printed(out));
        if (System.in.read() == -1) {
            System.exit(1); // Whoever started it is gone.
        }
        member.start();
    }

    private record Printed(PrintStream out) implements RebalanceWatch {
        @Override
        public void assigned(int member, Collection<TopicPartition> partitions, long nanos) {
            print("assigned", partitions, nanos);
        }

        @Override
        public void revoked(int member, Collection<TopicPartition> partitions, long nanos) {
            print("revoked", partitions, nanos);
        }

        private void print(String what, Collection<TopicPartition> partitions, long nanos) {
            String indexes = partitions.stream().map(one -> "" + one.partition())
                .collect(Collectors.joining(","));
            out.println(what + " " + nanos + " " + (indexes.isEmpty() ? "-" : indexes));
            out.flush();
        }

        @Override
        public void delivered(int partition, long offset, long nanos) {
            out.println("record " + nanos + " " + partition + " " + offset);
        }

        @Override
        public void polled() {
            if (out.checkError()) {
                System.exit(1);
            }
        }
    }

    /** Starts the process; `watch` is told what it says. */
    RebalanceVictim(int id, String bootstrap, String topic, String protocol, RebalanceWatch watch)
            throws IOException {
        this.id = id;
        String java = System.getProperty("java.home") + "/bin/java";
        var command = List.of(java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-cp", System.getProperty("java.class.path"), "RebalanceVictim", "" + id, bootstrap,
            topic, protocol);
        process = new ProcessBuilder(command)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        listener = new Thread(() -> listen(topic, watch), "victim-" + id);
        listener.start();
    }

    private void listen(String topic, RebalanceWatch watch) {
        try (var lines = process.inputReader(StandardCharsets.US_ASCII)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                // A line that was cut off is the last, and says nothing.
                if (words.length == 4 && words[0].equals("record")) {
                    watch.delivered(Integer.parseInt(words[2]), Long.parseLong(words[3]),
                        Long.parseLong(words[1]));
                } else if (words.length == 3 && words[0].equals("assigned")) {
                    watch.assigned(id, partitions(topic, words[2]), Long.parseLong(words[1]));
                } else if (words.length == 3) {
                    watch.revoked(id, partitions(topic, words[2]), Long.parseLong(words[1]));
                }
            }
        } catch (IOException ended) {
            // It was killed while it spoke.
        }
    }

    private static List<TopicPartition> partitions(String topic, String indexes) {
        return indexes.equals("-") ? List.of() : Arrays.stream(indexes.split(","))
            .map(index -> new TopicPartition(topic, Integer.parseInt(index))).toList();
    }

    int id() {
        return id;
    }

    /** Makes it join. */
    void start() throws IOException {
        process.getOutputStream().write('\n');
        process.getOutputStream().flush();
    }

    /** Kills the process with a signal that it cannot catch, and waits until it is gone. */
    void kill() throws InterruptedException {
        process.destroyForcibly();
        process.waitFor();
        listener.join();
    }
}
