package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/golang/protobuf/ptypes/empty"
	"google.golang.org/grpc"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/memif"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
)

const inodeURL = "inodeURL"

// describeFile says which file a URL stands for here: what a test compares with the file that the other side passed.
func describeFile(text string) map[string]any {
	described := map[string]any{"url": text}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "file" {
		return described
	}
	info, err := os.Stat(parsed.Path)
	if err != nil {
		described["error"] = err.Error()
		return described
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		described["dev"], described["ino"] = stat.Dev, stat.Ino
	}
	described["socket"] = info.Mode()&os.ModeSocket != 0
	if info.Mode().IsRegular() {
		content, _ := os.ReadFile(parsed.Path)
		described["content"] = strings.TrimSpace(string(content))
	}
	return described
}

// memifServer answers with the endpoint's own socket file.
type memifServer struct {
	socket string
}

func (s *memifServer) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest,
) (*networkservice.Connection, error) {
	if mechanism := request.GetConnection().GetMechanism(); mechanism.GetType() == memif.MECHANISM {
		emit("memif", map[string]any{"received": describeFile(mechanism.GetParameters()[inodeURL])})
		if mechanism.Parameters == nil {
			mechanism.Parameters = map[string]string{}
		}
		mechanism.Parameters[inodeURL] = (&url.URL{Scheme: "file", Path: s.socket}).String()
	}
	return next.Server(ctx).Request(ctx, request)
}

func (s *memifServer) Close(ctx context.Context, conn *networkservice.Connection) (*empty.Empty, error) {
	return next.Server(ctx).Close(ctx, conn)
}

// memifClient prefers MEMIF and passes a file with the preference.
type memifClient struct {
	file string
}

func (c *memifClient) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption,
) (*networkservice.Connection, error) {
	file := (&url.URL{Scheme: "file", Path: c.file}).String()
	known := false
	for _, mechanism := range request.GetMechanismPreferences() {
		if mechanism.GetType() == memif.MECHANISM {
			mechanism.Parameters = map[string]string{inodeURL: file}
			known = true
		}
	}
	if !known {
		request.MechanismPreferences = append(request.GetMechanismPreferences(), &networkservice.Mechanism{
			Cls: cls.LOCAL, Type: memif.MECHANISM, Parameters: map[string]string{inodeURL: file},
		})
	}
	conn, err := next.Client(ctx).Request(ctx, request, opts...)
	if err == nil {
		emit("memif", map[string]any{"received": describeFile(conn.GetMechanism().GetParameters()[inodeURL])})
	}
	return conn, err
}

func (c *memifClient) Close(
	ctx context.Context, conn *networkservice.Connection, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, conn, opts...)
}
