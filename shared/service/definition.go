package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Definition is a daemon as the service manager knows it.
type Definition struct {
	// Name is the name of the service and of its unit, such as certctl-agent.
	Name string
	// DisplayName and Description are for people; Windows shows both.
	DisplayName string
	Description string
	// Arguments are the words after the executable that run the daemon, such
	// as run.
	Arguments []string
	// ConfigFile, if not empty, is handed to the daemon with --config. Install
	// makes it absolute and requires that it exists.
	ConfigFile string
	// ConfigDir is where the configuration is looked for when nobody names a
	// file. Install makes it unless it is there: on Linux for root to write and
	// everybody to read, on Windows for administrators alone, which it requires
	// of one that is there as well. Empty makes none.
	ConfigDir string
	// Unit is the text of the systemd unit. Install changes only the value of
	// its line ExecStart=.
	Unit string
}

// validName is what both systemd and Windows take as the name of a service,
// and a shell without quotes.
var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

func (d *Definition) validate() error {
	if !validName.MatchString(d.Name) {
		return fmt.Errorf("service: name %q: expected lower-case letters, digits and hyphens", d.Name)
	}
	if d.DisplayName == "" || d.Description == "" {
		return fmt.Errorf("service %s: display name and description are needed", d.Name)
	}
	if len(d.Arguments) == 0 {
		return fmt.Errorf("service %s: the arguments that run it are needed", d.Name)
	}
	return nil
}

// commandLine is the arguments with the configuration file, if there is one,
// which must be a file that exists.
func (d *Definition) commandLine() ([]string, error) {
	arguments := append([]string(nil), d.Arguments...)
	if d.ConfigFile == "" {
		return arguments, nil
	}
	file, err := filepath.Abs(d.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", d.ConfigFile, err)
	}
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s: write it first, or leave out --config", file)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("configuration file %s is not a regular file", file)
	}
	return append(arguments, "--config", file), nil
}
