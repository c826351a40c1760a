package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"aquifer/clients/common"

	"github.com/segmentio/kafka-go"
)

type calls struct {
	client          *kafka.Client
	ctx             context.Context
	topic, old, own string
	at              int64
}

// administrate takes the admin steps of README.md; this client has none for deleting records.
func administrate(bootstrap, topic, old, group string, at int64) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	admin := calls{&kafka.Client{Addr: kafka.TCP(bootstrap)}, ctx, topic, old, group, at}
	common.Run([]common.Step{
		{Name: "create-topic", Do: admin.create},
		{Name: "create-again", Do: admin.create},
		{Name: "list-topics", Do: func() (any, error) { return common.Until(true, admin.known) }},
		{Name: "describe-topic", Do: admin.partitions},
		{Name: "create-partitions", Do: admin.morePartitions},
		{Name: "describe-configs", Do: admin.retention},
		{Name: "alter-configs", Do: admin.alter},
		{Name: "list-offsets", Do: admin.offsets},
		{Name: "list-groups", Do: admin.listed},
		{Name: "describe-group", Do: admin.state},
		{Name: "committed-offsets", Do: admin.committed},
		{Name: "delete-group", Do: admin.deleteGroup},
		{Name: "delete-topic", Do: admin.deleteTopic},
	})
}

func (c calls) create() (any, error) {
	answer, err := c.client.CreateTopics(c.ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{
			Topic: c.topic, NumPartitions: 3, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{
				{ConfigName: "retention.ms", ConfigValue: common.KeepMs},
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	var refused kafka.Error
	if errors.As(answer.Errors[c.topic], &refused) {
		return int(refused), nil
	}
	return "ok", answer.Errors[c.topic]
}

func (c calls) find() (*kafka.Topic, error) {
	answer, err := c.client.Metadata(c.ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	for _, topic := range answer.Topics {
		if topic.Name == c.topic {
			return &topic, nil
		}
	}
	return nil, nil
}

func (c calls) known() (any, error) {
	topic, err := c.find()
	return topic != nil, err
}

func (c calls) partitions() (any, error) {
	topic, err := c.find()
	if err != nil || topic == nil {
		return 0, err
	}
	return len(topic.Partitions), nil
}

func (c calls) morePartitions() (any, error) {
	answer, err := c.client.CreatePartitions(c.ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: c.topic, Count: 5}},
	})
	if err == nil {
		err = answer.Errors[c.topic]
	}
	if err != nil {
		return nil, err
	}
	return common.Until(5, c.partitions)
}

func (c calls) retention() (any, error) {
	answer, err := c.client.DescribeConfigs(c.ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: c.topic,
			ConfigNames: []string{"retention.ms"},
		}},
	})
	if err != nil {
		return nil, err
	}
	resource := answer.Resources[0]
	if resource.Error != nil || len(resource.ConfigEntries) != 1 {
		return nil, errors.Join(resource.Error, fmt.Errorf("%d entries", len(resource.ConfigEntries)))
	}
	return resource.ConfigEntries[0].ConfigValue, nil
}

func (c calls) alter() (any, error) {
	answer, err := c.client.IncrementalAlterConfigs(c.ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: c.topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: "retention.ms", Value: common.KeepLongerMs,
				ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	if err == nil {
		err = answer.Resources[0].Error
	}
	if err != nil {
		return nil, err
	}
	return common.Until(common.KeepLongerMs, c.retention)
}

// list asks for one offset: it is in Offsets when it was asked for by time.
func (c calls) list(asked kafka.OffsetRequest) (kafka.PartitionOffsets, error) {
	answer, err := c.client.ListOffsets(c.ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{c.old: {asked}},
	})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	offsets := answer.Topics[c.old][0]
	return offsets, offsets.Error
}

func (c calls) offsets() (any, error) {
	first, one := c.list(kafka.FirstOffsetOf(0))
	last, two := c.list(kafka.LastOffsetOf(0))
	later, three := c.list(kafka.TimeOffsetOf(0, time.UnixMilli(c.at)))
	for offset := range later.Offsets {
		return fmt.Sprint(first.FirstOffset, " ", last.LastOffset, " ", offset), nil
	}
	return nil, errors.Join(one, two, three, errors.New("no offset for the time"))
}

func (c calls) listed() (any, error) {
	answer, err := c.client.ListGroups(c.ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	for _, group := range answer.Groups {
		if group.GroupID == c.own {
			return true, answer.Error
		}
	}
	return false, answer.Error
}

func (c calls) state() (any, error) {
	answer, err := c.client.DescribeGroups(c.ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{c.own}})
	if err != nil {
		return nil, err
	}
	return answer.Groups[0].GroupState, answer.Groups[0].Error
}

func (c calls) committed() (any, error) {
	answer, err := c.client.OffsetFetch(c.ctx, &kafka.OffsetFetchRequest{
		GroupID: c.own, Topics: map[string][]int{c.old: {0}},
	})
	if err != nil {
		return nil, err
	}
	return answer.Topics[c.old][0].CommittedOffset, answer.Error
}

func (c calls) deleteGroup() (any, error) {
	answer, err := c.client.DeleteGroups(c.ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{c.own}})
	if err == nil {
		err = answer.Errors[c.own]
	}
	if err != nil {
		return nil, err
	}
	return common.Until(false, c.listed)
}

func (c calls) deleteTopic() (any, error) {
	answer, err := c.client.DeleteTopics(c.ctx, &kafka.DeleteTopicsRequest{Topics: []string{c.topic}})
	if err == nil {
		err = answer.Errors[c.topic]
	}
	if err != nil {
		return nil, err
	}
	return common.Until(false, c.known)
}
