//go:build tools

// Package multus pins the Multus that the tests run, its thin plugin.
package multus

import _ "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus"
