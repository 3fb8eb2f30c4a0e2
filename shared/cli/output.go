package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/certctl/certctl/shared/printable"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/sheet"
)

// Output is how a verb writes what it shows: as a table or text for people, or as a
// document for programs. It is the value of the flag --output of all programs.
type Output string

// The values of --output. "text" is another word for the first.
const (
	OutputTable Output = "table"
	OutputJSON  Output = "json"
	OutputYAML  Output = "yaml"
	OutputCSV   Output = "csv"
)

// outputs are the values of --output, and what each is for.
var outputs = []cobra.Completion{
	cobra.CompletionWithDesc(string(OutputTable), "for people"),
	cobra.CompletionWithDesc(string(OutputJSON), "for programs; the names of its fields stay"),
	cobra.CompletionWithDesc(string(OutputYAML), "the JSON document as YAML"),
	cobra.CompletionWithDesc(string(OutputCSV), "for spreadsheets: a line for each item"),
}

// Bind adds the flag to flags, which are cmd's own or those that cmd's verbs
// share.
func (o *Output) Bind(cmd *cobra.Command, flags *pflag.FlagSet) {
	*o = OutputTable
	flags.VarP(o, "output", "o", "how to write it: table, json, yaml or csv")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
}

// Set implements pflag.Value.
func (o *Output) Set(text string) error {
	switch given := Output(text); given {
	case OutputTable, OutputJSON, OutputYAML, OutputCSV:
		*o = given
	case "text":
		*o = OutputTable
	default:
		return errors.New("expected table, json, yaml or csv")
	}
	return nil
}

// String implements pflag.Value.
func (o *Output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *Output) Type() string { return "format" }

// Human reports whether a person reads it.
func (o Output) Human() bool { return o == OutputTable || o == "" }

// Write writes a document as was asked for. human writes what a person reads.
//
// The documents for programs have the same fields in the same order. As CSV a list has
// a line for each item, and any other document is one line: see [sheet.Write].
func (o Output) Write(out io.Writer, document any, human func(out io.Writer) error) error {
	switch o {
	case OutputJSON:
		return WriteJSON(out, document)
	case OutputYAML:
		return WriteYAML(out, document)
	case OutputCSV:
		return sheet.Write(out, document, true)
	case OutputTable:
	}
	return human(out)
}

// WriteJSON writes v indented, with a newline at the end. What JSON lets stand although
// a terminal obeys it is escaped, which means the same.
func WriteJSON(out io.Writer, v any) error {
	text, err := encode(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

// WriteJSONLine writes v on one line.
func WriteJSONLine(out io.Writer, v any) error {
	text, err := encode(v, "", "")
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

func encode(v any, prefix, indent string) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent(prefix, indent)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	return printable.JSON(text.String()), nil
}

// WriteYAML writes as YAML what WriteJSON writes as JSON.
func WriteYAML(out io.Writer, v any) error {
	text, err := encodeYAML(v)
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

func encodeYAML(v any) (string, error) {
	document, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	text, err := settings.YAML(document)
	if err != nil {
		return "", err
	}
	// Texts of anything but plain letters stand between double quotes there.
	return printable.YAML(string(text)), nil
}
