package metrics

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"
)

// ContentType is that of the text exposition format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// exposition writes metrics in the text exposition format of Prometheus, version
// 0.0.4: each family with its help and type, then its samples.
type exposition struct {
	out    *bufio.Writer
	family *Family
	number []byte
}

func newExposition(w io.Writer) *exposition { return &exposition{out: bufio.NewWriterSize(w, 32<<10)} }

// finish writes what is left and returns the first error of the writer.
func (e *exposition) finish() error { return e.out.Flush() }

// escapeHelp and escapeLabel are what the format escapes in help texts and in
// values of labels.
var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// begin opens a family. Its samples follow.
func (e *exposition) begin(f *Family) {
	e.family = f
	e.text("# HELP ", f.Name, " ", escapeHelp.Replace(f.Help), "\n# TYPE ", f.Name, " ", f.Kind, "\n")
}

// text writes; the writer keeps the first error.
func (e *exposition) text(parts ...string) {
	for _, part := range parts {
		_, _ = e.out.WriteString(part)
	}
}

// sample writes one value, with the values of the family's labels in their order.
func (e *exposition) sample(value float64, labels ...string) {
	e.text(e.family.Name)
	for i, label := range labels {
		mark := ","
		if i == 0 {
			mark = "{"
		}
		e.text(mark, e.family.Labels[i], `="`)
		_, _ = escapeLabel.WriteString(e.out, strings.ToValidUTF8(label, "\ufffd"))
		e.text(`"`)
	}
	if len(labels) > 0 {
		e.text("}")
	}
	e.number = strconv.AppendFloat(append(e.number[:0], ' '), value, 'f', -1, 64)
	_, _ = e.out.Write(append(e.number, '\n'))
}

// moment writes a time, unless it is zero: what is not there is left out.
func (e *exposition) moment(at time.Time, labels ...string) {
	if !at.IsZero() {
		e.sample(seconds(at), labels...)
	}
}

// seconds are since the Unix epoch. Dates reach further than nanoseconds do.
func seconds(at time.Time) float64 {
	return float64(at.Unix()) + float64(at.Nanosecond())/1e9
}

// one writes a family of a single sample.
func (e *exposition) one(f *Family, value float64) {
	e.begin(f)
	e.sample(value)
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
