package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
)

// Report is what a stopped node has, as "recover inspect" writes it and "recover
// plan" reads it. It holds no secret.
type Report struct {
	Format  int       `json:"format"`
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of the program that made the report
	DataDir string    `json:"data_dir"`
	// ClusterID is that of the built-in CA in the state; "" if it is not known.
	ClusterID string `json:"cluster_id,omitempty"`
	cluster.Report
	// Rows counts the records of the state that the whole log makes.
	Rows map[string]int `json:"rows,omitempty"`
	// StateProblem says why the state cannot be made of what is there, so that the
	// node cannot be recovered from.
	StateProblem string `json:"state_problem,omitempty"`
	// JournalProblem says why the journal cannot be opened.
	JournalProblem string `json:"journal_problem,omitempty"`
	// SealKeyProblem says why the node's seal key does not open the CA.
	SealKeyProblem string `json:"seal_key_problem,omitempty"`
}

const (
	reportFormat = 1
	// maxReport bounds a report that is read, in octets.
	maxReport = 64 << 20
)

// ReadReport reads a report and checks it as far as a comparison depends on it.
func ReadReport(r io.Reader) (*Report, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxReport {
		return nil, fmt.Errorf("it is larger than %d octets, and so no report of \"recover inspect\"", maxReport)
	}
	report := new(Report)
	if err := json.Unmarshal(text, report); err != nil {
		return nil, fmt.Errorf("it is no report of \"recover inspect --output json\": %w", err)
	}
	switch {
	case report.Format > reportFormat:
		return nil, fmt.Errorf("it is of format %d, known is %d: compare with the newest version of the program", report.Format, reportFormat)
	case report.Format != reportFormat || report.NodeID == "":
		return nil, errors.New("it is no report of \"recover inspect --output json\"")
	}
	return report, report.check()
}

// check finds what a comparison would stumble over.
func (r *Report) check() error {
	var last uint64
	for _, run := range r.Terms {
		if run.From == 0 || run.To < run.From || run.From <= last {
			return fmt.Errorf("its list of terms is out of order at entry %d", run.From)
		}
		last = run.To
	}
	if last > r.LastIndex {
		return fmt.Errorf("its list of terms goes on to entry %d, behind the last one, %d", last, r.LastIndex)
	}
	last = 0
	for _, entry := range r.Entries {
		if entry.Index <= last || entry.Index > r.LastIndex {
			return fmt.Errorf("its entries are out of order at %d", entry.Index)
		}
		last = entry.Index
	}
	return nil
}
