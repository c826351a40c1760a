// sarama behind the common command line of README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"aquifer/clients/common"

	"github.com/IBM/sarama"
)

var check = common.Check

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "produce", "idempotent":
		produce(args[1], args[2], args[3], args[4], args[0] == "idempotent")
	case "consume":
		count, err := strconv.Atoi(args[4])
		check(err)
		consume(args[1], args[2], args[3], count)
	case "group":
		group(args[1], args[2], args[3], args[4])
	case "admin":
		at, err := strconv.ParseInt(args[5], 10, 64)
		check(err)
		administrate(args[1], args[2], args[3], args[4], at)
	default:
		check(fmt.Errorf("no command %q", args[0]))
	}
}

func produce(bootstrap, topic, codec, path string, idempotent bool) {
	settings := sarama.NewConfig()
	check(settings.Producer.Compression.UnmarshalText([]byte(codec)))
	settings.Producer.Return.Successes = true
	settings.Producer.Partitioner = sarama.NewManualPartitioner
	settings.Producer.RequiredAcks = sarama.WaitForAll
	if idempotent { // Its own conditions for it.
		settings.Producer.Idempotent = true
		settings.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, settings)
	check(err)
	var batch []*sarama.ProducerMessage
	for _, in := range common.Read(path) {
		message := &sarama.ProducerMessage{Topic: topic, Timestamp: time.UnixMilli(in.Timestamp)}
		if in.Key != nil {
			message.Key = sarama.ByteEncoder(in.Key)
		}
		if in.Value != nil {
			message.Value = sarama.ByteEncoder(in.Value)
		}
		for _, header := range in.Headers {
			message.Headers = append(message.Headers,
				sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		batch = append(batch, message)
	}
	check(producer.SendMessages(batch))
	for _, message := range batch {
		fmt.Println(message.Offset)
	}
	check(producer.Close())
}

// member reads until it has seen enough.
type member struct {
	left int
	done context.CancelFunc
}

func (*member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case in, more := <-claim.Messages():
			if !more || m.left == 0 {
				return nil
			}
			record := common.Record{Key: in.Key, Value: in.Value, Timestamp: in.Timestamp.UnixMilli()}
			for _, header := range in.Headers {
				record.Headers = append(record.Headers,
					common.Header{Name: string(header.Key), Value: header.Value})
			}
			common.Show(record, in.Offset)
			session.MarkMessage(in, "")
			if m.left--; m.left == 0 {
				m.done()
			}
		}
	}
}

func consume(bootstrap, topic, group string, count int) {
	settings := sarama.NewConfig()
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	consumer, err := sarama.NewConsumerGroup([]string{bootstrap}, group, settings)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	reader := &member{left: count, done: cancel}
	for reader.left > 0 {
		check(consumer.Consume(ctx, []string{topic}, reader))
		if reader.left > 0 && ctx.Err() != nil {
			check(fmt.Errorf("%d of %d records are missing after 60 s", reader.left, count))
		}
	}
	check(consumer.Close())
}

type calls struct {
	admin           sarama.ClusterAdmin
	topic, old, own string
	at              int64
}

// administrate takes the admin steps of README.md.
func administrate(bootstrap, topic, old, group string, at int64) {
	client, err := sarama.NewClusterAdmin([]string{bootstrap}, sarama.NewConfig())
	check(err)
	admin := calls{client, topic, old, group, at}
	common.Run([]common.Step{
		{Name: "create-topic", Do: admin.create},
		{Name: "create-again", Do: admin.create},
		{Name: "list-topics", Do: func() (any, error) { return common.Until(true, admin.known) }},
		{Name: "describe-topic", Do: admin.partitions},
		{Name: "create-partitions", Do: admin.morePartitions},
		{Name: "describe-configs", Do: admin.retention},
		{Name: "alter-configs", Do: admin.alter},
		{Name: "list-offsets", Do: admin.offsets},
		{Name: "delete-records", Do: admin.deleteRecords},
		{Name: "list-groups", Do: admin.listed},
		{Name: "describe-group", Do: admin.state},
		{Name: "committed-offsets", Do: admin.committed},
		{Name: "delete-group", Do: admin.deleteGroup},
		{Name: "delete-topic", Do: admin.deleteTopic},
	})
	check(client.Close())
}

func (c calls) create() (any, error) {
	keep := common.KeepMs
	err := c.admin.CreateTopic(c.topic, &sarama.TopicDetail{
		NumPartitions: 3, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &keep},
	}, false)
	var refused *sarama.TopicError
	if errors.As(err, &refused) {
		return int16(refused.Err), nil
	}
	return "ok", err
}

func (c calls) known() (any, error) {
	topics, err := c.admin.ListTopics()
	_, found := topics[c.topic]
	return found, err
}

func (c calls) partitions() (any, error) {
	topics, err := c.admin.DescribeTopics([]string{c.topic})
	if err != nil {
		return nil, err
	}
	return len(topics[0].Partitions), nil
}

func (c calls) morePartitions() (any, error) {
	if err := c.admin.CreatePartitions(c.topic, 5, nil, false); err != nil {
		return nil, err
	}
	return common.Until(5, c.partitions)
}

func (c calls) retention() (any, error) {
	entries, err := c.admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: c.topic, ConfigNames: []string{"retention.ms"},
	})
	if err != nil || len(entries) != 1 {
		return nil, errors.Join(err, fmt.Errorf("%d entries", len(entries)))
	}
	return entries[0].Value, nil
}

func (c calls) alter() (any, error) {
	value := common.KeepLongerMs
	err := c.admin.IncrementalAlterConfig(sarama.TopicResource, c.topic,
		map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}, false)
	if err != nil {
		return nil, err
	}
	return common.Until(common.KeepLongerMs, c.retention)
}

func (c calls) offset(at int64) (any, error) {
	answers, err := c.admin.ListOffsets(map[string]map[int32]int64{c.old: {0: at}}, nil)
	if err != nil {
		return nil, err
	}
	answer := answers[c.old][0]
	if answer.Err != sarama.ErrNoError {
		return nil, answer.Err
	}
	return answer.Offset, nil
}

func (c calls) earliest() (any, error) { return c.offset(sarama.OffsetOldest) }

func (c calls) offsets() (any, error) {
	first, one := c.earliest()
	end, two := c.offset(sarama.OffsetNewest)
	later, three := c.offset(c.at)
	return fmt.Sprint(first, " ", end, " ", later), errors.Join(one, two, three)
}

func (c calls) deleteRecords() (any, error) {
	if err := c.admin.DeleteRecords(c.old, map[int32]int64{0: common.DeleteBefore}); err != nil {
		return nil, err
	}
	return common.Until(int64(common.DeleteBefore), c.earliest)
}

func (c calls) listed() (any, error) {
	groups, err := c.admin.ListConsumerGroups()
	_, found := groups[c.own]
	return found, err
}

func (c calls) state() (any, error) {
	groups, err := c.admin.DescribeConsumerGroups([]string{c.own})
	if err != nil {
		return nil, err
	}
	return groups[0].State, nil
}

func (c calls) committed() (any, error) {
	answer, err := c.admin.ListConsumerGroupOffsets(c.own, map[string][]int32{c.old: {0}})
	if err != nil {
		return nil, err
	}
	return answer.GetBlock(c.old, 0).Offset, nil
}

func (c calls) deleteGroup() (any, error) {
	if err := c.admin.DeleteConsumerGroup(c.own); err != nil {
		return nil, err
	}
	return common.Until(false, c.listed)
}

func (c calls) deleteTopic() (any, error) {
	if err := c.admin.DeleteTopic(c.topic); err != nil {
		return nil, err
	}
	return common.Until(false, c.known)
}
