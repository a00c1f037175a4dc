package main

import (
	"context"

	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/registry/core/next"
)

// registrationReport prints every registration of an endpoint, renewals included.
type registrationReport struct{}

func (*registrationReport) Register(
	ctx context.Context, in *registry.NetworkServiceEndpoint, opts ...grpc.CallOption,
) (*registry.NetworkServiceEndpoint, error) {
	answer, err := next.NetworkServiceEndpointRegistryClient(ctx).Register(ctx, in, opts...)
	if err != nil {
		emit("register", map[string]any{"error": err.Error()})
		return nil, err
	}
	emit("register", map[string]any{"endpoint": message(answer)})
	return answer, nil
}

func (*registrationReport) Find(
	ctx context.Context, query *registry.NetworkServiceEndpointQuery, opts ...grpc.CallOption,
) (registry.NetworkServiceEndpointRegistry_FindClient, error) {
	return next.NetworkServiceEndpointRegistryClient(ctx).Find(ctx, query, opts...)
}

func (*registrationReport) Unregister(
	ctx context.Context, in *registry.NetworkServiceEndpoint, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	return next.NetworkServiceEndpointRegistryClient(ctx).Unregister(ctx, in, opts...)
}
