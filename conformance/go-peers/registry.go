package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/networkservicemesh/api/pkg/api/registry"
	registryclient "github.com/networkservicemesh/sdk/pkg/registry/chains/client"
	"github.com/networkservicemesh/sdk/pkg/registry/common/grpcmetadata"
	"github.com/networkservicemesh/sdk/pkg/registry/common/null"
	registrysendfd "github.com/networkservicemesh/sdk/pkg/registry/common/sendfd"
	"github.com/networkservicemesh/sdk/pkg/registry/core/chain"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
)

// runRegistry makes one call: `registry [flags] register|find|watch|unregister ns|nse JSON`. The JSON is the object, or for
// find and watch the template.
func runRegistry(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("registry", flag.ExitOnError)
	p := peerFlags(flags, "go-registry")
	_ = flags.Parse(arguments)
	if flags.NArg() != 3 {
		return errors.New("expected: register|find|watch|unregister ns|nse JSON")
	}
	verb, kind, object := flags.Arg(0), flags.Arg(1), flags.Arg(2)

	manager, err := p.url()
	if err != nil {
		return err
	}
	generate, err := tokens(p.name, p.lifetime)
	if err != nil {
		return err
	}
	// Without the elements that repeat a call, so that an error is seen as it comes.
	options := []registryclient.Option{
		registryclient.WithClientURL(manager),
		registryclient.WithDialOptions(dialOptions(generate)...),
		registryclient.WithDialTimeout(p.dial),
		registryclient.WithNSHealClient(null.NewNetworkServiceRegistryClient()),
		registryclient.WithNSRetryClient(null.NewNetworkServiceRegistryClient()),
		registryclient.WithNSEHealClient(null.NewNetworkServiceEndpointRegistryClient()),
		registryclient.WithNSERetryClient(null.NewNetworkServiceEndpointRegistryClient()),
		registryclient.WithNSEAdditionalFunctionality(registrysendfd.NewNetworkServiceEndpointRegistryClient()),
	}
	living, end := context.WithCancel(ctx)
	defer end()
	calling, done := living, context.CancelFunc(func() {})
	if verb != "watch" {
		calling, done = context.WithTimeout(living, p.timeout)
	}
	defer done()

	switch kind {
	case "ns":
		service := &registry.NetworkService{}
		if err = protojson.Unmarshal([]byte(object), service); err != nil {
			return err
		}
		client := registryclient.NewNetworkServiceRegistryClient(living, options...)
		if verb == "unregister" {
			// The SDK's chain does nothing for a service that the same process has not registered.
			cc, dialErr := grpc.NewClient(grpcutils.URLToTarget(manager), dialOptions(generate)...)
			if dialErr != nil {
				return dialErr
			}
			client = chain.NewNetworkServiceRegistryClient(
				grpcmetadata.NewNetworkServiceRegistryClient(), registry.NewNetworkServiceRegistryClient(cc))
		}
		return callServices(calling, verb, client, service)
	case "nse":
		endpoint := &registry.NetworkServiceEndpoint{}
		if err = protojson.Unmarshal([]byte(object), endpoint); err != nil {
			return err
		}
		return callEndpoints(calling, verb, registryclient.NewNetworkServiceEndpointRegistryClient(living, options...), endpoint)
	}
	return fmt.Errorf("unknown kind %q", kind)
}

func callServices(
	ctx context.Context, verb string, client registry.NetworkServiceRegistryClient, service *registry.NetworkService,
) error {
	switch verb {
	case "register":
		answer, err := client.Register(ctx, service)
		return report("registered", answer, err)
	case "unregister":
		_, err := client.Unregister(ctx, service)
		return report("unregistered", service, err)
	case "find", "watch":
		stream, err := client.Find(ctx, &registry.NetworkServiceQuery{NetworkService: service, Watch: verb == "watch"})
		if err != nil {
			return err
		}
		return follow(ctx, stream.Recv, (*registry.NetworkServiceResponse).GetNetworkService)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

func callEndpoints(
	ctx context.Context, verb string, client registry.NetworkServiceEndpointRegistryClient,
	endpoint *registry.NetworkServiceEndpoint,
) error {
	switch verb {
	case "register":
		answer, err := client.Register(ctx, endpoint)
		return report("registered", answer, err)
	case "unregister":
		_, err := client.Unregister(ctx, endpoint)
		return report("unregistered", endpoint, err)
	case "find", "watch":
		stream, err := client.Find(ctx, &registry.NetworkServiceEndpointQuery{
			NetworkServiceEndpoint: endpoint, Watch: verb == "watch",
		})
		if err != nil {
			return err
		}
		return follow(ctx, stream.Recv, (*registry.NetworkServiceEndpointResponse).GetNetworkServiceEndpoint)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

func report(event string, object proto.Message, err error) error {
	if err != nil {
		return err
	}
	emit(event, map[string]any{"object": message(object)})
	return nil
}

// answer is what both registries stream.
type answer interface {
	GetDeleted() bool
}

// follow prints what a Find streams until it ends.
func follow[A answer, O proto.Message](ctx context.Context, receive func() (A, error), object func(A) O) error {
	for {
		response, err := receive()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			emit("end", nil)
			return nil
		}
		if err != nil {
			return err
		}
		emit("found", map[string]any{"object": message(object(response)), "deleted": response.GetDeleted()})
	}
}
