package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/memif"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/endpoint"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms"
	kernelelement "github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/recvfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/chain"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/networkservicemesh/sdk/pkg/networkservice/ipam/point2pointipam"
	registryclient "github.com/networkservicemesh/sdk/pkg/registry/chains/client"
	registrysendfd "github.com/networkservicemesh/sdk/pkg/registry/common/sendfd"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

type endpointFlags struct {
	*peer
	services   list
	labels     pairs
	payload    string
	cidr       list
	listen     string
	mechanism  string
	memifFile  string
	refuse     string
	delay      time.Duration
	noRegister bool
	unregister bool
}

func runEndpoint(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("endpoint", flag.ExitOnError)
	f := endpointFlags{peer: peerFlags(flags, "go-endpoint"), labels: pairs{}, services: list{"demo"}, cidr: list{"172.16.1.0/24"}}
	flags.Var(&f.services, "services", "network services, a,b")
	flags.Var(f.labels, "labels", "labels of each service, key:value,…")
	flags.StringVar(&f.payload, "payload", "IP", "payload of the services")
	flags.Var(&f.cidr, "cidr", "prefixes to allocate from")
	flags.StringVar(&f.listen, "listen", "", "path of the socket; default: in a directory of its own")
	flags.StringVar(&f.mechanism, "mechanism", "kernel", "kernel, memif or both")
	flags.StringVar(&f.memifFile, "memif-file", "", "the file to answer MEMIF with; default: a socket of its own")
	flags.StringVar(&f.refuse, "refuse", "", "refuse each request with this text")
	flags.DurationVar(&f.delay, "delay", 0, "time to answer a request in")
	flags.BoolVar(&f.noRegister, "no-register", false, "serve without registering")
	flags.BoolVar(&f.unregister, "unregister", true, "unregister at the end")
	_ = flags.Parse(arguments)

	directory, err := os.MkdirTemp("", "go-endpoint")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	if f.listen == "" {
		f.listen = filepath.Join(directory, "listen.on")
	}
	if f.memifFile == "" {
		f.memifFile = filepath.Join(directory, "memif.sock")
		socket, listenErr := net.Listen("unix", f.memifFile)
		if listenErr != nil {
			return listenErr
		}
		defer func() { _ = socket.Close() }()
	}

	var prefixes []*net.IPNet
	for _, text := range f.cidr {
		_, prefix, parseErr := net.ParseCIDR(text)
		if parseErr != nil {
			return parseErr
		}
		prefixes = append(prefixes, prefix)
	}
	generate, err := tokens(f.name, f.lifetime)
	if err != nil {
		return err
	}

	offered := map[string]networkservice.NetworkServiceServer{}
	if f.mechanism != "memif" {
		offered[kernel.MECHANISM] = kernelelement.NewServer()
	}
	if f.mechanism != "kernel" {
		offered[memif.MECHANISM] = chain.NewNetworkServiceServer(&memifServer{socket: f.memifFile})
	}
	server := endpoint.NewServer(ctx, generate,
		endpoint.WithName(f.name),
		endpoint.WithAdditionalFunctionality(
			&endpointReport{refuse: f.refuse, delay: f.delay},
			recvfd.NewServer(),
			sendfd.NewServer(),
			point2pointipam.NewServer(prefixes...),
			mechanisms.NewServer(offered),
		))
	grpcServer := grpc.NewServer(serverOptions()...)
	server.Register(grpcServer)
	listenOn := &url.URL{Scheme: "unix", Path: f.listen}
	// The server outlives the signal: unregistering comes first.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := grpcutils.ListenAndServe(serving, listenOn, grpcServer)
	emit("listening", map[string]any{"url": listenOn.String(), "memif": describeFile("file://" + f.memifFile)})

	if !f.noRegister {
		leave, registerErr := f.register(serving, generate, listenOn)
		if registerErr != nil {
			return registerErr
		}
		defer leave()
	}
	emit("ready", map[string]any{"pid": os.Getpid()})

	select {
	case <-ctx.Done():
		return nil
	case err = <-served:
		return fmt.Errorf("the server ended: %w", err)
	}
}

// register announces the services and the endpoint, as cmd-nse-icmp-responder does. The SDK renews both until the context
// ends.
func (f *endpointFlags) register(ctx context.Context, generate token.GeneratorFunc, listenOn *url.URL) (leave func(), err error) {
	manager, err := f.url()
	if err != nil {
		return nil, err
	}
	common := []registryclient.Option{
		registryclient.WithClientURL(manager),
		registryclient.WithDialOptions(dialOptions(generate)...),
		registryclient.WithDialTimeout(f.dial),
	}
	services := registryclient.NewNetworkServiceRegistryClient(ctx, common...)
	calling, done := context.WithTimeout(ctx, f.timeout)
	defer done()
	for _, service := range f.services {
		answer, registerErr := services.Register(calling, &registry.NetworkService{Name: service, Payload: f.payload})
		if registerErr != nil {
			return nil, fmt.Errorf("service %q: %w", service, registerErr)
		}
		emit("service", map[string]any{"service": message(answer)})
	}

	endpoints := registryclient.NewNetworkServiceEndpointRegistryClient(ctx, append(common,
		registryclient.WithNSEAdditionalFunctionality(
			&registrationReport{},
			registrysendfd.NewNetworkServiceEndpointRegistryClient(),
		))...)
	labels := map[string]*registry.NetworkServiceLabels{}
	for _, service := range f.services {
		labels[service] = &registry.NetworkServiceLabels{Labels: f.labels}
	}
	answer, err := endpoints.Register(calling, &registry.NetworkServiceEndpoint{
		Name:                 f.name,
		NetworkServiceNames:  f.services,
		NetworkServiceLabels: labels,
		Url:                  listenOn.String(),
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", f.name, err)
	}
	emit("registered", map[string]any{"endpoint": message(answer)})

	return func() {
		if !f.unregister {
			return
		}
		leaving, left := context.WithTimeout(context.WithoutCancel(ctx), f.timeout)
		defer left()
		_, leaveErr := endpoints.Unregister(leaving, answer)
		emit("unregistered", map[string]any{"error": text(leaveErr)})
	}, nil
}

// endpointReport prints what reaches the endpoint, and fails or delays it when told to.
type endpointReport struct {
	refuse string
	delay  time.Duration
}

func (r *endpointReport) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest,
) (*networkservice.Connection, error) {
	if r.delay > 0 {
		select {
		case <-time.After(r.delay):
		case <-ctx.Done():
		}
	}
	if r.refuse != "" {
		emit("refused", map[string]any{"connection": message(request.GetConnection())})
		return nil, fmt.Errorf("%s", r.refuse)
	}
	asked := message(request)
	conn, err := next.Server(ctx).Request(ctx, request)
	if err != nil {
		emit("request", map[string]any{"request": asked, "error": err.Error()})
		return nil, err
	}
	emit("request", map[string]any{"request": asked, "connection": message(conn)})
	return conn, nil
}

func (r *endpointReport) Close(ctx context.Context, conn *networkservice.Connection) (*empty.Empty, error) {
	answer, err := next.Server(ctx).Close(ctx, conn)
	emit("close", map[string]any{"connection": message(conn), "error": text(err)})
	return answer, err
}
