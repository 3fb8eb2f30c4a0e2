package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/shared/settings"
)

// FileVariable is the environment variable that names the configuration file.
const FileVariable = "CERTCTL_CONFIG_FILE"

// Source is where a command reads its settings from: flags that every verb of
// a daemon has.
type Source struct {
	// DefaultFile is read when neither the flag nor the environment names a
	// file; it need not exist.
	DefaultFile string

	file string
	set  []string
}

// Bind adds the flags --config and --set to cmd and its subcommands.
func (s *Source) Bind(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&s.file, "config", "", fmt.Sprintf("configuration file (default $%s, else %s)", FileVariable, s.DefaultFile))
	flags.StringArrayVar(&s.set, "set", nil, "set one setting, such as --set log.level=debug; may be repeated")
}

// File is the configuration file, and whether somebody named it.
func (s *Source) File() (path string, named bool) {
	if s.file != "" {
		return s.file, true
	}
	if path := os.Getenv(FileVariable); path != "" {
		return path, true
	}
	return s.DefaultFile, false
}

// Load fills dst, a pointer to a settings struct.
func (s *Source) Load(dst any) (*settings.Report, error) {
	flags := make(map[string]string, len(s.set))
	for _, text := range s.set {
		path, value, ok := strings.Cut(text, "=")
		if !ok || path == "" {
			return nil, fmt.Errorf("flag --set %q: expected setting=value, such as log.level=debug", text)
		}
		flags[path] = value
	}
	file, named := s.File()
	return settings.Load(dst, settings.Options{
		File: file, FileRequired: named, Guarded: true, Env: os.Environ(), Flags: flags,
		KnownEnv: Environment,
	})
}

// CheckConfig is the verb check-config. fresh makes an empty settings struct;
// more, if not nil, makes checks beyond those of the struct, without side
// effects; its warnings are of what is no error.
func CheckConfig[T any](source *Source, more func(*T, *settings.Report) (warnings []string, err error)) *cobra.Command {
	var explain, effective, example bool
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration and change nothing",
		Long: `Reads the configuration as "run" would, from file, environment and flags, and
reports everything that is wrong with it, each with file, line and column. What
this host lacks, such as a program or a user that a package may bring later, is a
warning on the standard error.

Exit status: 0 the configuration is good, 1 it is not.`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			dst := new(T)
			if example {
				text, err := settings.Example(dst)
				if err != nil {
					return err
				}
				_, err = out.Write(text)
				return err
			}
			report, err := source.Load(dst)
			if err != nil {
				return err
			}
			warnings := report.Warnings()
			if more != nil {
				found, err := more(dst, report)
				if err != nil {
					return err
				}
				warnings = slices.Concat(warnings, found)
			}
			for _, warning := range warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
			}
			switch {
			case effective:
				text, err := settings.Effective(dst)
				if err != nil {
					return err
				}
				_, err = out.Write(text)
				return err
			case explain:
				for _, v := range report.Values() {
					fmt.Fprintf(out, "%s = %s  (%s)\n", v.Path, v.Text, v.Origin)
				}
				return nil
			}
			file, _ := source.File()
			if report.FileRead() {
				fmt.Fprintf(out, "%s is good\n", file)
			} else {
				fmt.Fprintf(out, "there is no %s; the defaults and the environment are good\n", file)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&explain, "explain", false, "print every setting with the place that gave it its value")
	cmd.Flags().BoolVar(&effective, "effective", false, "print the configuration that results, as YAML, secrets redacted")
	cmd.Flags().BoolVar(&example, "example", false, "print a commented file with every setting and its default")
	cmd.MarkFlagsMutuallyExclusive("explain", "effective", "example")
	return cmd
}
