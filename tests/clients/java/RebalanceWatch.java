import java.util.Collection;
import org.apache.kafka.common.TopicPartition;

/** Who is told what a member is given and what it reads; times are of System.nanoTime. */
interface RebalanceWatch {
    /** The member owns these from now on. */
    void assigned(int member, Collection<TopicPartition> partitions, long nanos);

    /** The member does not own these any more. */
    void revoked(int member, Collection<TopicPartition> partitions, long nanos);

    /** The application has this record. */
    void delivered(int partition, long offset, long nanos);

    /** The records of one poll were told. */
    default void polled() {
    }
}
