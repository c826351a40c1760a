// The command `group` of README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a member reads and commits at once, and how long it waits for it.
const (
	pollFor   = 100 * time.Millisecond
	commitFor = 60 * time.Second
)

// reader is a member of a group. Callbacks come from the client's own goroutine, but never while
// polled records are in work.
type reader struct {
	topic   string
	mu      sync.Mutex
	held    map[int32]bool
	pending []*kgo.Record // Read, and not committed yet.
}

// protocolOptions are those of a group of the protocol that README.md calls so.
func protocolOptions(protocol string) []kgo.Opt {
	switch protocol {
	case "classic":
		return []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())}
	case "cooperative":
		return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}
	case "consumer": // It falls back to the classic protocol where the broker lacks this one.
		return []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}
	}
	check(fmt.Errorf("no protocol %q", protocol))
	return nil
}

// group reads as a member of a group until the file stop exists, then leaves. It prints
// "assigned P,P" at each change of what it holds, "record P OFFSET VALUE" once a record is committed,
// and "refused ERROR" when a commit is not taken. While the file stop.hold exists it keeps what it
// read, and says "holding N".
func group(bootstrap, topic, name, stop, protocol string) {
	member := &reader{topic: topic, held: map[int32]bool{}}
	client, err := kgo.NewClient(append(protocolOptions(protocol),
		kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, came map[string][]int32) {
			member.change(came[topic], nil)
		}),
		kgo.OnPartitionsRevoked(member.gone), kgo.OnPartitionsLost(member.gone),
	)...)
	check(err)
	for !exists(stop) {
		ctx, cancel := context.WithTimeout(context.Background(), pollFor)
		fetches := client.PollFetches(ctx)
		cancel()
		member.mu.Lock()
		member.pending = append(member.pending, fetches.Records()...)
		pending := slices.Clone(member.pending)
		member.mu.Unlock()
		if len(pending) > 0 {
			hold(stop, len(pending))
			member.commit(client, pending)
		}
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance()
}

func (r *reader) gone(_ context.Context, _ *kgo.Client, went map[string][]int32) {
	// It is called at the end of each session, also when nothing goes.
	if len(went[r.topic]) > 0 {
		r.change(nil, went[r.topic])
	}
}

func (r *reader) change(came, went []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, partition := range came {
		r.held[partition] = true
	}
	for _, partition := range went {
		delete(r.held, partition)
	}
	// Whoever holds these next reads what was not committed again.
	r.pending = slices.DeleteFunc(r.pending, func(one *kgo.Record) bool {
		return slices.Contains(went, one.Partition)
	})
	var names []string
	for partition := range r.held {
		names = append(names, fmt.Sprint(partition))
	}
	slices.Sort(names)
	fmt.Println("assigned " + strings.Join(names, ","))
}

func (r *reader) commit(client *kgo.Client, records []*kgo.Record) {
	ctx, cancel := context.WithTimeout(context.Background(), commitFor)
	defer cancel()
	if err := client.CommitRecords(ctx, records...); err != nil {
		fmt.Printf("refused %q\n", err)
		return
	}
	for _, one := range records {
		fmt.Printf("record %d %d %s\n", one.Partition, one.Offset, one.Value)
	}
	r.mu.Lock()
	r.pending = nil
	r.mu.Unlock()
}

func hold(stop string, count int) {
	if exists(stop + ".hold") {
		fmt.Println("holding", count)
	}
	for exists(stop + ".hold") {
		time.Sleep(20 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
