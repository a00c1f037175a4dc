package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang/protobuf/ptypes/empty"
	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/common"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/memif"
	kernelheal "github.com/networkservicemesh/sdk-kernel/pkg/kernel/tools/heal"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/heal"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms"
	kernelelement "github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/recvfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/upstreamrefresh"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/chain"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

type clientFlags struct {
	*peer
	service   string
	labels    pairs
	endpoint  string
	ifname    string
	mechanism string
	memifFile string
	id        string
	liveness  bool
	heal      bool
	refresh   bool
	attempts  int
}

func (f *clientFlags) define(flags *flag.FlagSet) {
	f.peer, f.labels = peerFlags(flags, "go-client"), pairs{}
	flags.StringVar(&f.service, "service", "demo", "network service")
	flags.Var(f.labels, "labels", "labels of the client, key:value,…")
	flags.StringVar(&f.endpoint, "endpoint", "", "ask for this endpoint")
	flags.StringVar(&f.ifname, "interface", "nsm-1", "name of the interface")
	flags.StringVar(&f.mechanism, "mechanism", "kernel", "kernel or memif")
	flags.StringVar(&f.memifFile, "memif-file", "/proc/thread-self/ns/net", "the file to pass with the MEMIF preference")
	flags.StringVar(&f.id, "id", "", "id of the connection; default: a new one")
	flags.BoolVar(&f.liveness, "liveness", true, "ping the endpoint, heal when it does not answer")
	flags.BoolVar(&f.heal, "heal", true, "heal")
	flags.BoolVar(&f.refresh, "refresh", true, "refresh")
	flags.IntVar(&f.attempts, "attempts", 1, "attempts of the first request")
}

// session is a client's chain with the first request that it makes.
type session struct {
	flags   *clientFlags
	client  networkservice.NetworkServiceClient
	monitor networkservice.MonitorConnectionClient
}

func (f *clientFlags) open(ctx context.Context) (*session, error) {
	manager, err := f.url()
	if err != nil {
		return nil, err
	}
	generate, err := tokens(f.name, f.lifetime)
	if err != nil {
		return nil, err
	}
	cc, err := grpc.NewClient(grpcutils.URLToTarget(manager), dialOptions(generate)...)
	if err != nil {
		return nil, err
	}

	offered := map[string]networkservice.NetworkServiceClient{
		kernel.MECHANISM: chain.NewNetworkServiceClient(kernelelement.NewClient(kernelelement.WithInterfaceName(f.ifname))),
	}
	if f.mechanism == "memif" {
		offered = map[string]networkservice.NetworkServiceClient{
			memif.MECHANISM: chain.NewNetworkServiceClient(&memifClient{file: f.memifFile}),
		}
	}
	tail := []networkservice.NetworkServiceClient{
		&clientReport{},
		upstreamrefresh.NewClient(ctx, upstreamrefresh.WithLocalNotifications()),
		mechanisms.NewClient(offered),
		sendfd.NewClient(),
	}
	if f.mechanism == "memif" {
		tail = append(tail, recvfd.NewClient())
	}
	options := []client.Option{
		client.WithName(f.name),
		client.WithClientURL(manager),
		client.WithDialTimeout(f.dial),
		client.WithDialOptions(dialOptions(generate)...),
		client.WithAdditionalFunctionality(tail...),
	}
	if f.heal {
		healing := []heal.Option{}
		if f.liveness {
			healing = append(healing,
				heal.WithLivenessCheck(kernelheal.KernelLivenessCheck),
				heal.WithLivenessCheckInterval(200*time.Millisecond),
				heal.WithLivenessCheckTimeout(time.Second))
		}
		options = append(options, client.WithHealClient(heal.NewClient(ctx, healing...)))
	}
	if !f.refresh {
		options = append(options, client.WithoutRefresh())
	}
	if f.id == "" {
		f.id = uuid.NewString()
	}
	return &session{
		flags:   f,
		client:  client.NewClient(ctx, options...),
		monitor: networkservice.NewMonitorConnectionClient(cc),
	}, nil
}

func (s *session) request() *networkservice.NetworkServiceRequest {
	preference := &networkservice.Mechanism{
		Cls: cls.LOCAL, Type: strings.ToUpper(s.flags.mechanism), Parameters: map[string]string{},
	}
	if preference.GetType() == kernel.MECHANISM {
		preference.Parameters[common.InterfaceNameKey] = s.flags.ifname
	}
	return &networkservice.NetworkServiceRequest{
		Connection: &networkservice.Connection{
			Id:                         s.flags.id,
			NetworkService:             s.flags.service,
			NetworkServiceEndpointName: s.flags.endpoint,
			Labels:                     s.flags.labels,
		},
		MechanismPreferences: []*networkservice.Mechanism{preference},
	}
}

// recover asks the manager for the connection that a client of this id had before it was restarted, as cmd-nsc does.
func (s *session) recover(ctx context.Context, request *networkservice.NetworkServiceRequest) error {
	stream, err := s.monitor.MonitorConnections(ctx, &networkservice.MonitorScopeSelector{
		PathSegments: []*networkservice.PathSegment{{Id: s.flags.id}},
	})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	emit("monitor", map[string]any{"type": first.GetType().String(), "connections": connections(first)})
	for _, known := range first.GetConnections() {
		path := known.GetPath()
		if path.GetIndex() != 1 || path.GetPathSegments()[0].GetId() != s.flags.id {
			continue
		}
		if !strings.EqualFold(known.GetMechanism().GetType(), s.flags.mechanism) {
			continue
		}
		conn := known.Clone()
		conn.Id, conn.Path.Index = s.flags.id, 0
		if conn.GetState() == networkservice.State_DOWN {
			conn.State = networkservice.State_RESELECT_REQUESTED
		}
		request.Connection = conn
		emit("recovered", map[string]any{"connection": message(conn)})
		break
	}
	go watch(stream)
	return nil
}

func watch(stream networkservice.MonitorConnection_MonitorConnectionsClient) {
	for {
		event, err := stream.Recv()
		if err != nil {
			emit("monitor-end", map[string]any{"error": err.Error()})
			return
		}
		emit("monitor", map[string]any{"type": event.GetType().String(), "connections": connections(event)})
	}
}

func connections(event *networkservice.ConnectionEvent) map[string]any {
	byID := map[string]any{}
	for id, conn := range event.GetConnections() {
		byID[id] = message(conn)
	}
	return byID
}

// neverSent tells a call that failed in the SDK before it left, as it does now and then: the file of the namespace was closed
// by one of its goroutines while another one wanted to send it. That says nothing about the agent.
func neverSent(attempt int, err error) bool {
	return attempt < 5 && strings.Contains(err.Error(), "file already closed")
}

func runClient(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	f := &clientFlags{}
	f.define(flags)
	_ = flags.Parse(arguments)

	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s, err := f.open(living)
	if err != nil {
		return err
	}
	request := s.request()
	if err = s.recover(living, request); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}

	var conn *networkservice.Connection
	for attempt := 1; ; attempt++ {
		calling, done := context.WithTimeout(ctx, f.timeout)
		conn, err = s.client.Request(calling, request.Clone())
		done()
		if err == nil {
			break
		}
		if (attempt >= f.attempts && !neverSent(attempt, err)) || ctx.Err() != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	emit("connected", map[string]any{"connection": message(conn)})

	commands := make(chan string)
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			commands <- lines.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return s.close(living, conn)
		case command := <-commands:
			switch command {
			case "close":
				return s.close(living, conn)
			case "request":
				calling, done := context.WithTimeout(ctx, f.timeout)
				again, requestErr := s.client.Request(calling, &networkservice.NetworkServiceRequest{
					Connection: conn.Clone(), MechanismPreferences: s.request().GetMechanismPreferences(),
				})
				done()
				if requestErr != nil {
					emit("request-failed", map[string]any{"error": requestErr.Error()})
					continue
				}
				conn = again
				emit("connected", map[string]any{"connection": message(conn)})
			default:
				emit("unknown-command", map[string]any{"command": command})
			}
		}
	}
}

func (s *session) close(ctx context.Context, conn *networkservice.Connection) error {
	calling, done := context.WithTimeout(ctx, s.flags.timeout)
	defer done()
	if _, err := s.client.Close(calling, conn.Clone()); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	emit("closed", nil)
	return nil
}

// clientReport prints each answer, those to refreshes and heals included.
type clientReport struct{}

func (*clientReport) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption,
) (*networkservice.Connection, error) {
	began := time.Now()
	state := request.GetConnection().GetState().String()
	conn, err := next.Client(ctx).Request(ctx, request, opts...)
	if err != nil {
		emit("answer", map[string]any{"asked": state, "ms": milliseconds(began), "error": err.Error()})
		return nil, err
	}
	emit("answer", map[string]any{"asked": state, "ms": milliseconds(began), "connection": message(conn)})
	return conn, nil
}

func (*clientReport) Close(
	ctx context.Context, conn *networkservice.Connection, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	began := time.Now()
	answer, err := next.Client(ctx).Close(ctx, conn, opts...)
	emit("close-answer", map[string]any{"ms": milliseconds(began), "error": text(err)})
	return answer, err
}
