// The commands `churn` and `feed` of README.md: groups whose members come and go, and what they read.
package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// What a member does next is decided this often, at random between the two.
	churnLeast, churnMost = 500 * time.Millisecond, 4 * time.Second
	lookInterval          = time.Second
	askFor                = 5 * time.Second
	commitTries           = 4
)

// setting is what all groups of one process share.
type setting struct {
	bootstrap       []string
	topic, protocol string
	seed            uint64
	most            int  // Members of a group.
	dies            bool // Whether members also go without a word.
	journal         *os.File
}

// crowd is a group and its members.
type crowd struct {
	*setting
	name    string
	mu      sync.Mutex // Held for each line, so that lines of a group are in order.
	members []*member
	last    int
}

// churn runs groups whose members join, leave and die until the file STOP exists, then lets them
// be until STOP.end exists; they leave and it ends.
func churn(args []string) {
	seed, err := strconv.ParseUint(args[4], 10, 64)
	check(err)
	most, err := strconv.Atoi(args[5])
	check(err)
	journal, err := os.OpenFile(args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(err)
	shared := &setting{
		bootstrap: strings.Split(args[0], ","), topic: args[1], journal: journal,
		seed: seed, most: most, dies: args[6] == "deaths", protocol: args[7],
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(shared.bootstrap...))
	check(err)
	var all sync.WaitGroup
	for _, name := range args[8:] {
		group := &crowd{setting: shared, name: name}
		group.tell("born", "")
		all.Go(func() { group.live(args[3]) })
		go group.watch(kadm.NewClient(admin))
	}
	all.Wait()
}

// tell writes a line: milliseconds, group, what happened and to whom. Its caller holds the lock,
// unless nobody else knows the group yet.
func (g *crowd) tell(kind, about string) {
	line := fmt.Sprintln(time.Now().UnixMilli(), g.name, kind, about)
	_, err := g.journal.WriteString(line)
	check(err)
}

// live makes members come and go.
func (g *crowd) live(stop string) {
	hash := fnv.New64a()
	hash.Write([]byte(g.name))
	draw := rand.New(rand.NewPCG(g.seed, hash.Sum64()))
	for range (g.most + 1) / 2 {
		g.join()
	}
	for !exists(stop) {
		time.Sleep(churnLeast + time.Duration(draw.Int64N(int64(churnMost-churnLeast))))
		switch turn := draw.IntN(10); {
		case turn < 5 && len(g.members) < g.most:
			g.join()
		case turn >= 5 && len(g.members) > 1:
			index := draw.IntN(len(g.members))
			gone := g.members[index]
			g.members = slices.Delete(g.members, index, index+1)
			if g.dies && turn >= 8 {
				gone.die()
			} else {
				go gone.leave()
			}
		}
	}
	g.mu.Lock()
	g.tell("calm", fmt.Sprint(len(g.members)))
	g.mu.Unlock()
	for !exists(stop + ".end") {
		time.Sleep(50 * time.Millisecond)
	}
	var leaving sync.WaitGroup
	for _, one := range g.members {
		leaving.Go(one.leave)
	}
	leaving.Wait()
}

// watch tells what the broker says was committed.
func (g *crowd) watch(admin *kadm.Client) {
	for {
		time.Sleep(lookInterval)
		g.mu.Lock()
		g.tell("asked", "")
		g.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), askFor)
		offsets, err := admin.FetchOffsets(ctx, g.name)
		cancel()
		g.mu.Lock()
		if err == nil && offsets.Error() == nil {
			var seen []string
			for partition, one := range offsets[g.topic] {
				seen = append(seen, fmt.Sprintf("%d:%d", partition, one.At))
			}
			g.tell("seen", strings.Join(seen, ","))
		}
		g.mu.Unlock()
	}
}

// member is a client of its own. What it holds and reads is told unless it died: nobody is there
// to know it then.
type member struct {
	*crowd
	id     int
	client *kgo.Client
	line   lifeline
	stop   context.CancelFunc
	ended  chan struct{}
	dead   bool
}

func (g *crowd) join() {
	g.mu.Lock()
	g.last++
	ctx, stop := context.WithCancel(context.Background())
	one := &member{crowd: g, id: g.last, stop: stop, ended: make(chan struct{})}
	g.tell("joins", fmt.Sprint(one.id))
	g.mu.Unlock()
	g.members = append(g.members, one)
	client, err := kgo.NewClient(append(protocolOptions(g.protocol),
		kgo.SeedBrokers(g.bootstrap...), kgo.ConsumerGroup(g.name), kgo.ConsumeTopics(g.topic),
		kgo.ClientID(fmt.Sprintf("%s-%d", g.name, one.id)), kgo.Dialer(one.line.dial),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.DisableClientMetrics(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.OnPartitionsAssigned(one.change("assigned")),
		kgo.OnPartitionsRevoked(one.change("revoked")), kgo.OnPartitionsLost(one.change("lost")),
	)...)
	check(err)
	one.client = client
	go one.read(ctx)
}

// say tells something of a member that lives.
func (m *member) say(kind, about string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead {
		m.tell(kind, fmt.Sprintf("%d %s", m.id, about))
	}
}

func (m *member) change(kind string) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		if len(partitions[m.topic]) > 0 {
			m.say(kind, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(partitions[m.topic])), ","), "[]"))
		}
	}
}

// read polls and commits until the member goes.
func (m *member) read(ctx context.Context) {
	defer close(m.ended)
	for ctx.Err() == nil {
		// Short, so that a commit that failed is tried again soon.
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fetches := m.client.PollFetches(poll)
		cancel()
		fetches.EachPartition(func(one kgo.FetchTopicPartition) { m.tellRuns(one.Partition, one.Records) })
		// While a rebalance is blocked, or another might own what is committed by then.
		for try := 0; try < commitTries && !m.commit(ctx); try++ {
		}
		m.client.AllowRebalance()
	}
}

// tellRuns tells which offsets were read: "M PARTITION FIRST NEXT".
func (m *member) tellRuns(partition int32, records []*kgo.Record) {
	for from := 0; from < len(records); {
		to := from + 1
		for to < len(records) && records[to].Offset == records[to-1].Offset+1 {
			to++
		}
		m.say("read", fmt.Sprintf("%d %d %d", partition, records[from].Offset, records[to-1].Offset+1))
		from = to
	}
}

// commit commits what was read and tells what was taken: "M PARTITION NEXT". It returns false where
// nobody knows what came of it.
func (m *member) commit(ctx context.Context) bool {
	offsets := m.client.UncommittedOffsets()
	if len(offsets) == 0 {
		return true
	}
	known := true
	within, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	m.client.CommitOffsetsSync(within, offsets, func(
		_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error,
	) {
		if err != nil {
			m.say("unsure", fmt.Sprintf("%q", err))
			known = ctx.Err() != nil // Who goes does not try again.
			return
		}
		for _, topic := range answer.Topics {
			for _, one := range topic.Partitions {
				if err := kerr.ErrorForCode(one.ErrorCode); err != nil {
					m.say("refused", fmt.Sprintf("%d %v", one.Partition, err))
				} else {
					m.say("committed", fmt.Sprintf("%d %d", one.Partition, offsets[m.topic][one.Partition].Offset))
				}
			}
		}
	})
	return known
}

func (m *member) leave() {
	m.say("leaves", "")
	m.stop()
	<-m.ended
	m.client.CloseAllowingRebalance()
	m.say("left", "")
}

// die ends a member as kill -9 does: no word reaches the broker any more.
func (m *member) die() {
	m.mu.Lock()
	m.tell("dies", fmt.Sprint(m.id))
	m.dead = true
	m.mu.Unlock()
	m.line.cut()
	m.stop()
	go func() {
		<-m.ended
		at, cancel := context.WithCancel(context.Background())
		cancel() // It does not wait for the answer to its farewell, which cannot be sent.
		m.client.AllowRebalance()
		_ = m.client.LeaveGroupContext(at)
		m.client.Close()
	}()
}

// lifeline are the connections of a member, which can all be cut at once.
type lifeline struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	gone  bool
}

func (l *lifeline) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		conn.Close()
		return nil, net.ErrClosed
	}
	if l.conns == nil {
		l.conns = map[net.Conn]struct{}{}
	}
	l.conns[conn] = struct{}{}
	return conn, nil
}

func (l *lifeline) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	for conn := range l.conns {
		conn.Close()
	}
}

// feed sends numbered records to each partition in turn until the file STOP exists; prints
// "PARTITION NEXT", the offset behind the last acknowledged record of each.
func feed(args []string) {
	partitions, err := strconv.ParseInt(args[2], 10, 32)
	check(err)
	rate, err := strconv.Atoi(args[3])
	check(err)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(args[0], ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	check(err)
	var mu sync.Mutex
	next := make([]int64, partitions)
	for number := int64(0); !exists(args[4]); number++ {
		record := &kgo.Record{
			Topic: args[1], Partition: int32(number % partitions), Value: fmt.Append(nil, number),
		}
		client.Produce(context.Background(), record, func(sent *kgo.Record, err error) {
			check(err)
			mu.Lock()
			next[sent.Partition] = max(next[sent.Partition], sent.Offset+1)
			mu.Unlock()
		})
		time.Sleep(time.Second / time.Duration(rate))
	}
	check(client.Flush(context.Background()))
	for partition, offset := range next {
		fmt.Println(partition, offset)
	}
}
