package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// runBench makes and closes connections one after another and prints how long each call took.
func runBench(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	f := &clientFlags{}
	f.define(flags)
	n := flags.Int("n", 100, "connections")
	_ = flags.Parse(arguments)
	f.liveness = false

	requests, closes := make([]float64, 0, *n), make([]float64, 0, *n)
	for range *n {
		living, end := context.WithCancel(ctx)
		f.id = uuid.NewString()
		s, err := f.open(living)
		if err != nil {
			end()
			return err
		}
		calling, done := context.WithTimeout(living, f.timeout)
		began := time.Now()
		conn, err := s.client.Request(calling, s.request())
		if err == nil {
			requests = append(requests, milliseconds(began))
			began = time.Now()
			_, err = s.client.Close(calling, conn.Clone())
			closes = append(closes, milliseconds(began))
		}
		done()
		end()
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(requests), err)
		}
	}
	emit("bench", map[string]any{"request_ms": requests, "close_ms": closes})
	return nil
}
