// franz-go behind the common command line of README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"aquifer/clients/common"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var check = common.Check

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "produce", "idempotent": // Idempotence is this client's default.
		produce(args[1], args[2], args[3], args[4])
	case "consume":
		count, err := strconv.Atoi(args[4])
		check(err)
		consume(args[1], args[2], args[3], count)
	case "group":
		group(args[1], args[2], args[3], args[4], append(args, "classic")[5])
	case "churn":
		churn(args[1:])
	case "feed":
		feed(args[1:])
	case "admin":
		at, err := strconv.ParseInt(args[5], 10, 64)
		check(err)
		administrate(args[1], args[2], args[3], args[4], at)
	default:
		check(fmt.Errorf("no command %q", args[0]))
	}
}

func produce(bootstrap, topic, codec, path string) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "zstd": kgo.ZstdCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(),
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerBatchMaxBytes(1_048_588), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.AllowAutoTopicCreation(),
	)
	check(err)
	var batch []*kgo.Record
	for _, in := range common.Read(path) {
		record := &kgo.Record{
			Topic: topic, Key: in.Key, Value: in.Value, Timestamp: time.UnixMilli(in.Timestamp),
		}
		for _, header := range in.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		batch = append(batch, record)
	}
	check(client.ProduceSync(context.Background(), batch...).FirstErr())
	for _, record := range batch {
		fmt.Println(record.Offset)
	}
	client.Close()
}

func consume(bootstrap, topic, group string, count int) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
	)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for seen := 0; seen < count; {
		fetches := client.PollFetches(ctx)
		check(fetches.Err())
		fetches.EachRecord(func(in *kgo.Record) {
			record := common.Record{Key: in.Key, Value: in.Value, Timestamp: in.Timestamp.UnixMilli()}
			for _, header := range in.Headers {
				record.Headers = append(record.Headers, common.Header{Name: header.Key, Value: header.Value})
			}
			common.Show(record, in.Offset)
			seen++
		})
	}
	check(client.CommitUncommittedOffsets(ctx))
	client.Close()
}

type calls struct {
	client          *kadm.Client
	ctx             context.Context
	topic, old, own string
	at              int64
}

// administrate takes the admin steps of README.md.
func administrate(bootstrap, topic, old, group string, at int64) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	admin := calls{kadm.NewClient(client), ctx, topic, old, group, at}
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
	client.Close()
}

func (c calls) create() (any, error) {
	keep := common.KeepMs
	_, err := c.client.CreateTopic(c.ctx, 3, 1, map[string]*string{"retention.ms": &keep}, c.topic)
	var refused *kerr.Error
	if errors.As(err, &refused) {
		return refused.Code, nil
	}
	return "ok", err
}

func (c calls) known() (any, error) {
	topics, err := c.client.ListTopics(c.ctx)
	return topics.Has(c.topic), err
}

func (c calls) partitions() (any, error) {
	topics, err := c.client.ListTopics(c.ctx, c.topic)
	return len(topics[c.topic].Partitions), err
}

func (c calls) morePartitions() (any, error) {
	answers, err := c.client.UpdatePartitions(c.ctx, 5, c.topic)
	if err = errors.Join(err, answers.Error()); err != nil {
		return nil, err
	}
	return common.Until(5, c.partitions)
}

func (c calls) retention() (any, error) {
	answers, err := c.client.DescribeTopicConfigs(c.ctx, c.topic)
	if err != nil {
		return nil, err
	}
	config, err := answers.On(c.topic, nil)
	if err = errors.Join(err, config.Err); err != nil {
		return nil, err
	}
	index := slices.IndexFunc(config.Configs, func(one kadm.Config) bool { return one.Key == "retention.ms" })
	if index < 0 {
		return nil, errors.New("no retention.ms")
	}
	return config.Configs[index].MaybeValue(), nil
}

func (c calls) alter() (any, error) {
	value := common.KeepLongerMs
	change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}
	answers, err := c.client.AlterTopicConfigs(c.ctx, change, c.topic)
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		if answer.Err != nil {
			return nil, answer.Err
		}
	}
	return common.Until(common.KeepLongerMs, c.retention)
}

func (c calls) offset(answers kadm.ListedOffsets, err error) (int64, error) {
	if err = errors.Join(err, answers.Error()); err != nil {
		return -1, err
	}
	return answers[c.old][0].Offset, nil
}

func (c calls) earliest() (any, error) {
	return c.offset(c.client.ListStartOffsets(c.ctx, c.old))
}

func (c calls) offsets() (any, error) {
	first, one := c.earliest()
	end, two := c.offset(c.client.ListEndOffsets(c.ctx, c.old))
	later, three := c.offset(c.client.ListOffsetsAfterMilli(c.ctx, c.at, c.old))
	return fmt.Sprint(first, " ", end, " ", later), errors.Join(one, two, three)
}

func (c calls) deleteRecords() (any, error) {
	offsets := kadm.Offsets{}
	offsets.AddOffset(c.old, 0, common.DeleteBefore, -1)
	answers, err := c.client.DeleteRecords(c.ctx, offsets)
	if err = errors.Join(err, answers.Error()); err != nil {
		return nil, err
	}
	return common.Until(int64(common.DeleteBefore), c.earliest)
}

func (c calls) listed() (any, error) {
	groups, err := c.client.ListGroups(c.ctx)
	_, found := groups[c.own]
	return found, err
}

func (c calls) state() (any, error) {
	groups, err := c.client.DescribeGroups(c.ctx, c.own)
	return groups[c.own].State, errors.Join(err, groups.Error())
}

func (c calls) committed() (any, error) {
	offsets, err := c.client.FetchOffsets(c.ctx, c.own)
	return offsets[c.old][0].At, errors.Join(err, offsets.Error())
}

func (c calls) deleteGroup() (any, error) {
	answers, err := c.client.DeleteGroups(c.ctx, c.own)
	if err = errors.Join(err, answers.Error()); err != nil {
		return nil, err
	}
	return common.Until(false, c.listed)
}

func (c calls) deleteTopic() (any, error) {
	answers, err := c.client.DeleteTopics(c.ctx, c.topic)
	if err = errors.Join(err, answers.Error()); err != nil {
		return nil, err
	}
	return common.Until(false, c.known)
}
