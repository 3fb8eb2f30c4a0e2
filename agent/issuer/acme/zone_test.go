package acme

import (
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// zone is a primary server of one zone that takes signed updates of TXT records
// and resolves every name to 127.0.0.1.
type zone struct {
	address, name, key, secret string

	mu    sync.Mutex
	txt   []*dns.TXT
	count int
	mute  bool // accept updates and do not show them
}

func startZone(t *testing.T, name, key, secret string) *zone {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	z := &zone{address: listener.Addr().String(), name: name, key: key, secret: secret}
	started := make(chan struct{})
	server := &dns.Server{
		Listener: listener, Handler: z, TsigSecret: map[string]string{key: secret},
		NotifyStartedFunc: func() { close(started) },
		// The library's default refuses updates.
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return z
}

func (z *zone) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	answer := new(dns.Msg).SetReply(request)
	answer.Authoritative = true
	z.mu.Lock()
	switch {
	case request.Opcode == dns.OpcodeUpdate:
		answer.Rcode = z.update(w, request)
	case request.Question[0].Qtype == dns.TypeTXT && !z.mute:
		for _, txt := range z.txt {
			if txt.Hdr.Name == request.Question[0].Name {
				answer.Answer = append(answer.Answer, txt)
			}
		}
	case request.Question[0].Qtype == dns.TypeA:
		answer.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: request.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
			A:   net.IPv4(127, 0, 0, 1),
		}}
	}
	z.mu.Unlock()
	if len(answer.Answer) == 0 && request.Opcode == dns.OpcodeQuery && dns.IsSubDomain(z.name, request.Question[0].Name) {
		answer.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: z.name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
			Ns:  "ns." + z.name, Mbox: "ops." + z.name, Serial: 1,
		}}
	}
	if signed := request.IsTsig(); signed != nil && w.TsigStatus() == nil {
		answer.SetTsig(signed.Hdr.Name, signed.Algorithm, tsigFudge, int64(signed.TimeSigned))
	}
	_ = w.WriteMsg(answer)
}

func (z *zone) update(w dns.ResponseWriter, request *dns.Msg) int {
	if request.IsTsig() == nil {
		return dns.RcodeRefused
	}
	if w.TsigStatus() != nil {
		return dns.RcodeNotAuth
	}
	if request.Question[0].Name != z.name {
		return dns.RcodeNotZone
	}
	z.count++
	for _, record := range request.Ns {
		txt, ok := record.(*dns.TXT)
		if !ok {
			return dns.RcodeRefused
		}
		z.txt = slices.DeleteFunc(z.txt, func(have *dns.TXT) bool {
			return have.Hdr.Name == txt.Hdr.Name && slices.Equal(have.Txt, txt.Txt)
		})
		if txt.Hdr.Class == dns.ClassINET { // else ClassNONE: delete (RFC 2136 section 2.5.4)
			z.txt = append(z.txt, txt)
		}
	}
	return dns.RcodeSuccess
}

func (z *zone) records() []*dns.TXT {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.txt)
}

func (z *zone) updates() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.count
}
