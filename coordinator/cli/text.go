package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/printable"
)

const maxSmallFile = 1 << 20

// readSmall reads a file of text; "-" is standard input.
func readSmall(path string) (string, error) {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSmallFile+1))
	switch {
	case err != nil:
		return "", err
	case len(data) > maxSmallFile:
		return "", fmt.Errorf("%s is larger than %d bytes; it is not the file that was meant", path, maxSmallFile)
	}
	return strings.TrimSpace(string(data)), nil
}

// plain makes a text from outside safe for a terminal.
func plain(text string) string { return printable.Text(text) }

// counted is a number with what is said of one, or of several.
func counted(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// plainLines is plain for a text of several lines.
func plainLines(text string) string { return printable.Lines(text) }

// dash stands for what is not there.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return plain(text)
}

// table writes rows under a header, aligned, and says so if there are none.
func table(out io.Writer, header []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, "none")
		return err
	}
	var aligned sharedcli.Table
	aligned.Row(header)
	for _, row := range rows {
		aligned.Row(row)
	}
	return aligned.Flush(out)
}

// facts writes names and values, one a line.
func facts(out io.Writer, pairs [][2]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, pair := range pairs {
		fmt.Fprintf(w, "%s:\t%s\n", pair[0], dash(pair[1]))
	}
	return w.Flush()
}

// moment is a time for a person: when it is, and how far from now.
func moment(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format("2006-01-02 15:04:05"), distance(t, now))
}

// horizon is moment for an offline horizon, which says aloud that it has passed.
func horizon(t, now time.Time) string {
	if !t.IsZero() && !now.Before(t) {
		return fmt.Sprintf("PASSED at %s: as last reported, an expired or revoked certificate would be served", moment(t, now))
	}
	return moment(t, now)
}

// notSafe says aloud that certificates are not safe now; "" if they all are.
func notSafe(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("NOT SAFE NOW (%d)", n)
}

// distance is "in 41 d" or "3 h ago".
func distance(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := t.Sub(now)
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// expiry is distance, with the one thing said aloud that must not be overlooked.
func expiry(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case !now.Before(t):
		return "EXPIRED " + span(now.Sub(t)) + " ago"
	}
	return "in " + span(t.Sub(now))
}

// span is a length of time in its two most telling units at most.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d/day))
}
