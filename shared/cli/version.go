package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/shared/buildinfo"
)

// Version is the verb version.
func Version() *cobra.Command {
	var output Output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and platform",
		Long: `Prints the version of this program, the commit that it was built from, and for which
system.`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ShowVersion(cmd.OutOrStdout(), output)
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

// ShowVersion is what the verb version writes.
func ShowVersion(out io.Writer, output Output) error {
	info := buildinfo.Get()
	return output.Write(out, info, func(out io.Writer) error {
		_, err := fmt.Fprintln(out, info.String())
		return err
	})
}
