// segmentio kafka-go behind the common command line of README.md, and the program of its own
// README (`program`): DialLeader, WriteMessages, then a Reader with a group.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

type record struct {
	Key       *[]byte     `json:"key"`
	Value     *[]byte     `json:"value"`
	Headers   [][]*string `json:"headers"`
	Timestamp int64       `json:"timestamp"`
	Offset    int64       `json:"offset"`
}

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "produce":
		produce(args[1], args[2], args[3], args[4])
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
	case "program":
		program(args[1], args[2], args[3])
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func bytesOf(field *[]byte) []byte {
	if field == nil {
		return nil
	}
	if *field == nil {
		return []byte{}
	}
	return *field
}

func codecOf(name string) kafka.Compression {
	switch name {
	case "gzip":
		return kafka.Gzip
	case "snappy":
		return kafka.Snappy
	case "lz4":
		return kafka.Lz4
	case "zstd":
		return kafka.Zstd
	}
	return 0
}

func produce(bootstrap, topic, codec, path string) {
	conn, err := kafka.DialLeader(context.Background(), "tcp", bootstrap, topic, 0)
	check(err)
	base, err := conn.ReadLastOffset()
	check(err)
	file, err := os.Open(path)
	check(err)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll,
		Compression: codecOf(codec), BatchTimeout: 5 * time.Millisecond,
		AllowAutoTopicCreation: true,
		Balancer:               kafka.BalancerFunc(func(kafka.Message, ...int) int { return 0 }),
	}
	var batch []kafka.Message
	for lines.Scan() {
		var in record
		check(json.Unmarshal(lines.Bytes(), &in))
		message := kafka.Message{
			Key: bytesOf(in.Key), Value: bytesOf(in.Value), Time: time.UnixMilli(in.Timestamp),
		}
		for _, header := range in.Headers {
			var value []byte
			if header[1] != nil {
				check(json.Unmarshal([]byte(`"`+*header[1]+`"`), &value))
			}
			message.Headers = append(message.Headers, kafka.Header{Key: *header[0], Value: value})
		}
		batch = append(batch, message)
	}
	check(lines.Err())
	check(writer.WriteMessages(context.Background(), batch...))
	check(writer.Close())
	for index := range batch {
		fmt.Println(base + int64(index))
	}
}

func consume(bootstrap, topic, group string, count int) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, GroupID: group, Topic: topic,
		MinBytes: 1, MaxBytes: 10e6, StartOffset: kafka.FirstOffset,
	})
	out := bufio.NewWriter(os.Stdout)
	for seen := 0; seen < count; seen++ {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		message, err := reader.ReadMessage(ctx)
		cancel()
		check(err)
		key, err := json.Marshal(message.Key)
		check(err)
		value, err := json.Marshal(message.Value)
		check(err)
		headers := "["
		for index, header := range message.Headers {
			if index > 0 {
				headers += ", "
			}
			data, err := json.Marshal(header.Value)
			check(err)
			headers += fmt.Sprintf("[%q, %s]", header.Key, data)
		}
		fmt.Fprintf(out, "{\"key\": %s, \"value\": %s, \"headers\": %s], \"timestamp\": %d, \"offset\": %d}\n",
			key, value, headers, message.Time.UnixMilli(), message.Offset)
	}
	check(out.Flush())
	check(reader.Close())
}

// group reads as a member of a group until the file `stop` exists, then leaves. It prints
// "assigned P,P" at each rebalance and "record P OFFSET VALUE" once a record is committed.
func group(bootstrap, topic, group, stop string) {
	partition := regexp.MustCompile(`partition:(\d+)`)
	var generation atomic.Int64
	// A Reader tells its assignment in its log only.
	logger := kafka.LoggerFunc(func(format string, args ...interface{}) {
		line := fmt.Sprintf(format, args...)
		if !strings.HasPrefix(line, "subscribed to topics and partitions") {
			return
		}
		var partitions []string
		for _, match := range partition.FindAllStringSubmatch(line, -1) {
			partitions = append(partitions, match[1])
		}
		generation.Add(1)
		fmt.Println("assigned " + strings.Join(partitions, ","))
	})
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset,
		GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		MinBytes:       1, MaxBytes: 10e6, MaxWait: 500 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond,
		Logger: logger, ErrorLogger: log.Default(),
	})
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
	for {
		message, err := reader.FetchMessage(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil { // The broker went away: the Reader goes on by itself.
			log.Print(err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		fetched := generation.Load()
		err = reader.CommitMessages(context.Background(), message)
		// Once there is another assignment, it is read again by whom it belongs to.
		for err != nil && ctx.Err() == nil && generation.Load() == fetched {
			log.Print(err)
			time.Sleep(100 * time.Millisecond)
			err = reader.CommitMessages(context.Background(), message)
		}
		if err == nil {
			fmt.Printf("record %d %d %s\n", message.Partition, message.Offset, message.Value)
		}
	}
	// It says so of connections that the broker had closed.
	if err := reader.Close(); err != nil {
		log.Print(err)
	}
}

// program is what a newcomer pastes from kafka-go's documentation.
func program(bootstrap, topic, group string) {
	conn, err := kafka.DialLeader(context.Background(), "tcp", bootstrap, topic, 0)
	check(err)
	check(conn.SetWriteDeadline(time.Now().Add(10 * time.Second)))
	_, err = conn.WriteMessages(
		kafka.Message{Value: []byte("one!")},
		kafka.Message{Value: []byte("two!")},
		kafka.Message{Value: []byte("three!")},
	)
	check(err)
	check(conn.Close())
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, GroupID: group, Topic: topic, MinBytes: 10e3, MaxBytes: 10e6,
	})
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		message, err := reader.ReadMessage(ctx)
		cancel()
		check(err)
		fmt.Printf("%d: %s\n", message.Offset, message.Value)
	}
	check(reader.Close())
}
