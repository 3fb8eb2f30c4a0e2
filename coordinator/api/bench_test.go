package api_test

import (
	"bufio"
	"bytes"
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

	"github.com/certctl/certctl/coordinator/api/apitest"
)

// BenchmarkCertificates asks a whole coordinator for a page of certificates, over
// TLS and connections that are kept, and the client takes its share of the machine's
// processors. Each line has requests per second and how long the median and the
// slowest of a hundred took.
//
//	go test ./coordinator/api -run '^$' -bench Certificates -benchtime 3s
func BenchmarkCertificates(b *testing.B) {
	for _, certificates := range []int{10_000, 50_000} {
		b.Run(fmt.Sprintf("certificates=%d", certificates), func(b *testing.B) {
			c := apitest.Start(b)
			c.Fleet(certificates)
			for _, limit := range []int{50, 500} {
				for _, connections := range []int{1, 16, 64} {
					for _, kind := range []string{"200", "304"} {
						b.Run(fmt.Sprintf("limit=%d/connections=%d/%s", limit, connections, kind), func(b *testing.B) {
							c.KeepInTouch()
							l := newLoad(b, c, "/api/v1/certificates?limit="+strconv.Itoa(limit))
							l.run(b, connections, kind)
						})
					}
				}
			}
		})
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

func newLoad(b *testing.B, c *apitest.Coordinator, path string) *load {
	b.Helper()
	base, err := url.Parse(c.URL)
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
		if l.tag == "" {
			b.Skip("there is no ETag to ask with")
		}
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
	began := time.Now()
	for i, conn := range conns {
		working.Go(func() {
			answers := bufio.NewReaderSize(conn, 64<<10)
			for sent.Add(1) <= int64(b.N) {
				at := time.Now()
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := l.receive(answers, status); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	working.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "req/s")
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
func (l *load) receive(r *bufio.Reader, status []byte) error {
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
		case bytes.HasPrefix(line, []byte("Transfer-Encoding: ")):
			// In chunks, as the baseline has it: read to the last one.
			return l.chunks(r)
		}
	}
}

func (l *load) chunks(r *bufio.Reader) error {
	for headers := true; ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if headers {
			headers = len(line) > 2
			continue
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(size) + 2); err != nil || size == 0 {
			return err
		}
	}
}
