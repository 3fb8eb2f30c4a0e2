package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
)

// Validate implements settings.Validator.
func (m *Metrics) Validate(report func(string, error)) {
	if m.Listen != "" {
		if _, port, err := net.SplitHostPort(m.Listen); err != nil || port == "" {
			report("listen", fmt.Errorf("cannot use %q; expected host:port, such as 127.0.0.1:9464", m.Listen))
		}
	}
	switch {
	case m.TextFile == "":
	case !filepath.IsAbs(m.TextFile):
		report("textfile", fmt.Errorf("cannot use %q; expected an absolute path", m.TextFile))
	case filepath.Ext(m.TextFile) != ".prom":
		report("textfile", errors.New("expected a name that ends in .prom: node_exporter reads no other file"))
	}
}
