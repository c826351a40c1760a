// Package common is what the Go programs share: records as lines of JSON, and steps whose failure
// is printed.
package common

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"
)

// What `admin` does, as README.md says.
const (
	KeepMs       = "315360000000"
	KeepLongerMs = "946080000000"
	DeleteBefore = 50
)

// Header is a header of a Record; a nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// Record is one line; nil is null, and not empty.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Timestamp  int64
}

// Check ends the program with an error.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func decode(text *string) []byte {
	if text == nil {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(*text)
	Check(err)
	return append([]byte{}, data...)
}

func encode(data []byte) *string {
	if data == nil {
		return nil
	}
	text := base64.StdEncoding.EncodeToString(data)
	return &text
}

type line struct {
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
	Timestamp int64        `json:"timestamp"`
	Offset    int64        `json:"offset"`
}

// Read returns the records of a file.
func Read(path string) []Record {
	file, err := os.Open(path)
	Check(err)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	var records []Record
	for lines.Scan() {
		var in line
		Check(json.Unmarshal(lines.Bytes(), &in))
		record := Record{Key: decode(in.Key), Value: decode(in.Value), Timestamp: in.Timestamp}
		for _, header := range in.Headers {
			record.Headers = append(record.Headers, Header{*header[0], decode(header[1])})
		}
		records = append(records, record)
	}
	Check(lines.Err())
	return records
}

// Show prints a record that was read.
func Show(record Record, offset int64) {
	out := line{
		Key: encode(record.Key), Value: encode(record.Value), Headers: [][2]*string{},
		Timestamp: record.Timestamp, Offset: offset,
	}
	for _, header := range record.Headers {
		out.Headers = append(out.Headers, [2]*string{&header.Name, encode(header.Value)})
	}
	text, err := json.Marshal(out)
	Check(err)
	fmt.Println(string(text))
}

// A Step has a name, and prints what comes of it, an error too.
type Step struct {
	Name string
	Do   func() (any, error)
}

// Run takes each step, whatever came of those before.
func Run(steps []Step) {
	for _, step := range steps {
		result, err := step.Do()
		if err != nil {
			result = fmt.Sprintf("failed: %q", err)
		}
		fmt.Println(step.Name, result)
	}
}

// Until asks until the answer is the wanted one, for 10 s; it returns the last answer.
func Until(wanted any, ask func() (any, error)) (any, error) {
	for turn := 0; ; turn++ {
		answer, err := ask()
		if err != nil || answer == wanted || turn == 50 {
			return answer, err
		}
		time.Sleep(200 * time.Millisecond)
	}
}
