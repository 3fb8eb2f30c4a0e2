package api_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/apitest"
)

// BenchmarkCertificates asks a whole coordinator for a page of certificates, over
// TLS and connections that are kept. The client takes its share of the machine's
// processors. Each line has requests per second, how long the median and the slowest
// of a hundred took, and what a request took of the processors, client and all, which
// says more on a machine that does other things too.
//
//	200   the page, as somebody gets it who has not got it
//	busy  the page, while hosts report changes as fast as the cluster takes them
//	made  the page, by a coordinator that keeps nothing and makes it for each request
//	304   the word that the page is the one that the client has
//
// Alone:
//
//	go test ./coordinator/api -run '^$' -bench Certificates -benchtime 3s
func BenchmarkCertificates(b *testing.B) {
	for _, certificates := range []int{10_000, 50_000} {
		b.Run(fmt.Sprintf("certificates=%d", certificates), func(b *testing.B) {
			c := apitest.Start(b)
			c.Fleet(certificates)
			forgetful := c.Beside(func(c *api.Config) { c.Pages = -1 })
			for _, limit := range []int{50, 500} {
				path := fmt.Sprintf("/api/v1/certificates?limit=%d", limit)
				for _, connections := range []int{1, 16, 64} {
					for _, kind := range []string{"200", "busy", "made", "304"} {
						b.Run(fmt.Sprintf("limit=%d/connections=%d/%s", limit, connections, kind), func(b *testing.B) {
							c.KeepInTouch() // as their agents do: else they were cut off before long
							server := c.URL
							switch kind {
							case "made":
								server = forgetful
							case "busy":
								defer report(c)()
							}
							l := newLoad(b, c, server, path)
							l.run(b, connections, kind)
						})
					}
				}
			}
		})
	}
}

// report lets a host report one change after the other until stop is called.
func report(c *apitest.Coordinator) (stop func()) {
	var stopped atomic.Bool
	host := c.Agent(rand.Text(), "busy.example.com", nil)
	var working sync.WaitGroup
	working.Go(func() {
		for !stopped.Load() {
			host.Report("www", apitest.Valid(c.Now(), 60*day, "busy.example.com"))
		}
	})
	return func() {
		stopped.Store(true)
		working.Wait()
	}
}

// load is a request that is sent over and over.
type load struct {
	host    string
	tls     *tls.Config
	request []byte
	tag     string
	size    int // of the body
}

func newLoad(b *testing.B, c *apitest.Coordinator, server, path string) *load {
	b.Helper()
	base, err := url.Parse(server)
	require.NoError(b, err)
	roots := x509.NewCertPool()
	roots.AddCert(c.CA.Root())
	l := &load{host: base.Host, tls: &tls.Config{RootCAs: roots, ServerName: base.Hostname(), MinVersion: tls.VersionTLS13}}
	l.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nAccept: application/json\r\n", path, l.host, c.Admin.Reveal())
	conn := l.dial(b)
	defer conn.Close()
	_, err = conn.Write(append(bytes.Clone(l.request), "\r\n"...))
	require.NoError(b, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(b, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(b, err)
	require.Equal(b, http.StatusOK, response.StatusCode, "%s", body)
	l.tag, l.size = response.Header.Get("ETag"), len(body)
	return l
}

func (l *load) dial(b *testing.B) *tls.Conn {
	conn, err := tls.Dial("tcp", l.host, l.tls)
	require.NoError(b, err)
	return conn
}

// run sends b.N requests over so many connections, each of which sends the next one
// when the one before is answered.
func (l *load) run(b *testing.B, connections int, kind string) {
	request, status := bytes.Clone(l.request), []byte("HTTP/1.1 200 ")
	if kind == "304" {
		request, status = fmt.Appendf(request, "If-None-Match: %s\r\n", l.tag), []byte("HTTP/1.1 304 ")
	}
	request = append(request, "\r\n"...)
	conns := make([]*tls.Conn, connections)
	for i := range conns {
		conns[i] = l.dial(b)
		defer conns[i].Close()
		require.NoError(b, conns[i].Handshake())
	}
	took := make([][]time.Duration, connections)
	var sent atomic.Int64
	var working sync.WaitGroup
	b.ResetTimer()
	began, used := time.Now(), processorTime()
	for i, conn := range conns {
		working.Go(func() {
			answers := bufio.NewReaderSize(conn, 64<<10)
			for sent.Add(1) <= int64(b.N) {
				at := time.Now()
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := receive(answers, status); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	working.Wait()
	b.StopTimer()
	lasted, used := time.Since(began), processorTime()-used
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/lasted.Seconds(), "req/s")
	b.ReportMetric(float64(used.Microseconds())/float64(len(all)), "cpu-us/req")
	b.ReportMetric(at(all, 50), "p50-ms")
	b.ReportMetric(at(all, 99), "p99-ms")
	b.ReportMetric(float64(l.size), "page-B")
	b.ReportMetric(0, "ns/op")
}

// at is how long so many of a hundred took at most, in milliseconds.
func at(sorted []time.Duration, percent int) float64 {
	return float64(sorted[min(len(sorted)-1, len(sorted)*percent/100)].Microseconds()) / 1000
}

// receive reads an answer and throws it away, at little cost: the client and what it
// measures share the processors.
func receive(r *bufio.Reader, status []byte) error {
	size := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case first:
			if !bytes.HasPrefix(line, status) {
				return fmt.Errorf("the answer is %q", line)
			}
		case len(line) <= 2:
			_, err := r.Discard(size)
			return err
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len("Content-Length: "):]))); err != nil {
				return err
			}
		}
	}
}
