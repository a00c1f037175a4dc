// Command go-peers plays the peers of a Network Service Mesh with the upstream Go SDK: a client, an endpoint, and a caller
// of the registries. The conformance tests run it against this repository's agent, endpoint and client.
//
// What it observes goes to stdout, one JSON object a line with an "event" key; the SDK's own log goes to stderr.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/networkservicemesh/sdk/pkg/tools/log"
	"github.com/networkservicemesh/sdk/pkg/tools/log/logruslogger"
)

var commands = map[string]func(context.Context, []string) error{
	"endpoint": runEndpoint,
	"client":   runClient,
	"registry": runRegistry,
	"bench":    runBench,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-peers endpoint|client|registry|bench [flags]; -h after a command lists its flags")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	// With a level of WARN or lower the SDK loses the call options of its client elements, and with them passed files.
	logrus.SetLevel(logrus.InfoLevel)
	logrus.SetOutput(os.Stderr)
	ctx = log.WithLog(ctx, logruslogger.New(ctx))

	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		emit("error", map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}
