package config

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/certctl/certctl/shared/settings"
)

// Validate implements settings.Validator.
func (m *Metrics) Validate(report func(string, error)) {
	if m.Listen != "" {
		if err := settings.CheckListen(m.Listen); err != nil {
			report("listen", err)
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
