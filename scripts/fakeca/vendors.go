package main

import (
	"crypto/tls"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/digicert"
	"github.com/certctl/certctl/internal/fakeca/entrust"
	"github.com/certctl/certctl/internal/fakeca/globalsign"
	"github.com/certctl/certctl/internal/fakeca/sectigo"
)

// vendors are the fakes that can be played, by the kind of issuer that speaks with
// them.
var vendors = map[string]func(fakeca.Config) fakeca.Server{
	"digicert":   func(c fakeca.Config) fakeca.Server { return digicert.New(c) },
	"entrust":    func(c fakeca.Config) fakeca.Server { return entrust.New(c) },
	"globalsign": func(c fakeca.Config) fakeca.Server { return globalsign.New(c) },
	"sectigo":    func(c fakeca.Config) fakeca.Server { return sectigo.New(c) },
}

// certified is a fake that knows its users by a TLS certificate.
type certified interface {
	Client() tls.Certificate
}
