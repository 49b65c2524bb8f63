//go:build tools

// Package tools names what is built, so that go.sum covers it.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
