//go:build tools

// Package tools names what is built, so that go.sum covers it.
package tools

import _ "github.com/zegl/kube-score/cmd/kube-score"
