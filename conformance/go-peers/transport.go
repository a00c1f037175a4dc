package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"time"

	"github.com/edwarnicke/grpcfd"
	"github.com/golang-jwt/jwt/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/networkservicemesh/sdk/pkg/tools/token"
)

// tokens signs with a key of its own: without TLS nobody can check it, but the form is the one of a real token.
func tokens(name string, lifetime time.Duration) (token.GeneratorFunc, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return func(credentials.AuthInfo) (string, time.Time, error) {
		expires := time.Now().Add(lifetime)
		text, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{
			Subject:   "spiffe://conformance.test/" + name,
			ExpiresAt: jwt.NewNumericDate(expires),
		}).SignedString(key)
		return text, expires, err
	}, nil
}

// clearCredentials sends the token headers over a plain socket, which the SDK's own credentials refuse to do.
type clearCredentials struct {
	generate token.GeneratorFunc
}

func (c clearCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, expires, err := c.generate(nil)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"nsm-client-token":         text,
		"nsm-client-token-expires": expires.Format(time.RFC3339Nano),
	}, nil
}

func (clearCredentials) RequireTransportSecurity() bool { return false }

func dialOptions(generate token.GeneratorFunc) []grpc.DialOption {
	return []grpc.DialOption{
		grpcfd.WithChainStreamInterceptor(),
		grpcfd.WithChainUnaryInterceptor(),
		grpc.WithDefaultCallOptions(
			grpc.WaitForReady(true),
			grpc.PerRPCCredentials(clearCredentials{generate}),
		),
		grpc.WithTransportCredentials(grpcfd.TransportCredentials(insecure.NewCredentials())),
	}
}

func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(grpcfd.TransportCredentials(insecure.NewCredentials()))}
}
