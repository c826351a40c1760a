// The command `group` of README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// reader tells what it is assigned and what it has committed.
type reader struct {
	topic string
}

func (r *reader) Setup(session sarama.ConsumerGroupSession) error {
	var names []string
	for _, partition := range session.Claims()[r.topic] {
		names = append(names, fmt.Sprint(partition))
	}
	slices.Sort(names)
	fmt.Println("assigned " + strings.Join(names, ","))
	return nil
}

func (r *reader) Cleanup(sarama.ConsumerGroupSession) error {
	fmt.Println("assigned ")
	return nil
}

// ConsumeClaim reads one partition. A commit that is refused is told by the client's log only.
func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case in, more := <-claim.Messages():
			if !more {
				return nil
			}
			session.MarkMessage(in, "")
			session.Commit()
			fmt.Printf("record %d %d %s\n", in.Partition, in.Offset, in.Value)
		}
	}
}

// group reads as a member of a group until the file stop exists, then leaves. It prints
// "assigned P,P" at each change of what it holds and "record P OFFSET VALUE" once a record is committed.
func group(bootstrap, topic, name, stop string) {
	settings := sarama.NewConfig()
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Enable = false
	settings.Consumer.Group.Session.Timeout = 6 * time.Second
	settings.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	consumer, err := sarama.NewConsumerGroup([]string{bootstrap}, name, settings)
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			if _, err := os.Stat(stop); err == nil {
				cancel()
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for ctx.Err() == nil {
		// A session ends with each rebalance, and with an error while the broker is away.
		if err := consumer.Consume(ctx, []string{topic}, &reader{topic}); err != nil {
			log.Print(err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	check(consumer.Close())
}
