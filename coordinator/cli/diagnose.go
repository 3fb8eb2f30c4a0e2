package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/durable"
)

// Bounds of a bundle: as it comes, and unpacked.
const (
	maxDiagnosis = 256 << 20
	maxUnpacked  = 1 << 30
)

func (p *program) diagnoseCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use: "diagnose", Short: "Make a bundle for a support case", Args: cobra.NoArgs,
		Long: `Writes a gzipped tar archive of what every node that answers knows about itself:
version, configuration, readiness, Raft, journal, snapshots, room on the disk, metrics,
the newest lines of its log, and what its program is doing; and how the cluster stands
in the eyes of the node that is asked. It takes half a minute at most and works without
a leader and without a quorum. Nodes that did not answer are named.

It holds no tokens, no private keys and no seal key. It holds names of hosts and nodes,
addresses, and what the logs say: look at it before you pass it on.`,
		Example: `  certctl cluster diagnose
  certctl cluster diagnose --file case-4711.tar.gz`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.target.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			var bundle bytes.Buffer
			if err := c.DiagnoseCluster(cmd.Context(), &bundle, maxDiagnosis); err != nil {
				return err
			}
			held, err := readDiagnosis(bytes.NewReader(bundle.Bytes()))
			if err != nil {
				return fmt.Errorf("the bundle is damaged: %w; try again", err)
			}
			held.File = first(target, "certctl-diagnosis-"+time.Now().UTC().Format("20060102T150405Z")+".tar.gz")
			held.Bytes = int64(bundle.Len())
			if err := durable.WriteFile(held.File, bundle.Bytes(), 0o600); err != nil {
				return fmt.Errorf("flag --file: %w", err)
			}
			held.Attention = ordersAttention(cmd.Context(), c, nil)
			return p.show(cmd, held, func(out io.Writer, _ time.Time) error { return held.tell(out) })
		},
	}
	cmd.Flags().StringVar(&target, "file", "", "where to write it (default certctl-diagnosis-TIME.tar.gz here)")
	_ = cmd.MarkFlagFilename("file", "tar.gz")
	return cmd
}

// diagnosis is what a bundle holds.
type diagnosis struct {
	File       string             `json:"file"`
	Bytes      int64              `json:"bytes"`
	AnsweredBy string             `json:"answered_by"`
	Healthy    bool               `json:"healthy"`
	Problems   int                `json:"problems"`
	Nodes      []diagnosedContent `json:"nodes"`
	// Attention is what orders at authorities wait for, beside the bundle.
	Attention []string `json:"attention,omitempty"`
}

// diagnosedContent is a node's part of a bundle, as nodes.json in it says.
type diagnosedContent struct {
	Node  string   `json:"node"`
	Files []string `json:"files"`
	Bytes int64    `json:"bytes"` // unpacked
	Error string   `json:"error,omitempty"`
}

// readDiagnosis reads a bundle to its end.
func readDiagnosis(r io.Reader) (*diagnosis, error) {
	uncompressed, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	held := &diagnosis{Nodes: []diagnosedContent{}}
	archive := tar.NewReader(io.LimitReader(uncompressed, maxUnpacked))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return held, nil
		}
		if err != nil {
			return nil, err
		}
		_, name, _ := strings.Cut(header.Name, "/")
		switch name {
		case "nodes.json":
			err = json.NewDecoder(archive).Decode(&held.Nodes)
		case "health.json":
			var h resource.ClusterHealth
			err = json.NewDecoder(archive).Decode(&h)
			held.AnsweredBy, held.Healthy, held.Problems = h.AnsweredBy, h.Healthy, len(h.Problems)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
}

func (d *diagnosis) tell(out io.Writer) error {
	var rows [][]string
	for _, n := range d.Nodes {
		files := strings.Join(n.Files, " ")
		if n.Error != "" {
			files = strings.TrimSpace(files + " NOT COMPLETE: " + n.Error)
		}
		rows = append(rows, []string{n.Node, strconv.FormatInt((n.Bytes+1023)>>10, 10), files})
	}
	if err := table(out, []string{"NODE", "KIB", "FILES"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s (%d KiB) has this, and the members and the health as seen from %s (%s).\n",
		plain(d.File), (d.Bytes+1023)>>10, plain(d.AnsweredBy), counted(d.Problems, "problem", "problems"))
	for _, line := range d.Attention {
		fmt.Fprintf(out, "ORDERS: %s\n", plain(line))
	}
	return err
}
