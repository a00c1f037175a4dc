package main

import (
	"encoding/json"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var outputLock sync.Mutex

// emit prints one line of JSON: the event, when it happened, and what is known of it.
func emit(event string, fields map[string]any) {
	line := map[string]any{"event": event, "at_ms": time.Now().UnixMilli()}
	for key, value := range fields {
		line[key] = value
	}
	outputLock.Lock()
	defer outputLock.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

// message is a protobuf message under its snake_case names, unset fields included.
func message(m proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return json.RawMessage(`null`)
	}
	return text
}

func milliseconds(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}

// text is an error's words, or nothing.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
