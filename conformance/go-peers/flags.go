package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// pairs is a flag `key:value,key:value`, as NSM_LABELS is.
type pairs map[string]string

func (p pairs) String() string { return fmt.Sprint(map[string]string(p)) }

func (p pairs) Set(text string) error {
	for _, pair := range strings.Split(text, ",") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, ":")
		if !found {
			return fmt.Errorf("%q is no key:value", pair)
		}
		p[key] = value
	}
	return nil
}

// list is a flag `a,b`.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = nil
	for _, item := range strings.Split(text, ",") {
		if item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// peer is what every command needs to know.
type peer struct {
	name      string
	connectTo string
	lifetime  time.Duration
	dial      time.Duration
	timeout   time.Duration
}

func peerFlags(flags *flag.FlagSet, name string) *peer {
	p := &peer{}
	flags.StringVar(&p.name, "name", environment("NSM_NAME", name), "name of this process on the path")
	flags.StringVar(&p.connectTo, "connect-to",
		environment("NSM_CONNECT_TO", "unix:///var/lib/networkservicemesh/nsm.io.sock"), "the manager's socket")
	flags.DurationVar(&p.lifetime, "token-lifetime", 10*time.Minute, "lifetime of the tokens")
	flags.DurationVar(&p.dial, "dial-timeout", 5*time.Second, "patience with a dial")
	flags.DurationVar(&p.timeout, "timeout", 15*time.Second, "patience with one call")
	return p
}

func (p *peer) url() (*url.URL, error) { return url.Parse(p.connectTo) }

func environment(name, otherwise string) string {
	if value, set := os.LookupEnv(name); set {
		return value
	}
	return otherwise
}
