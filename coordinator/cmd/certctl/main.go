// Command certctl is the operator's command line: it asks the coordinator, and
// tells it what to do.
package main

import (
	"os"

	"github.com/certctl/certctl/coordinator/cli"
)

func main() { os.Exit(cli.Execute(os.Args[1:], os.Stdout, os.Stderr)) }
