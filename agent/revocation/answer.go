package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Result is what is known of a certificate.
type Result string

// Results.
const (
	ResultGood    Result = "good"    // its authority does not say that it is revoked
	ResultRevoked Result = "revoked" // its authority says that it is
	ResultUnknown Result = "unknown" // the responder does not know it, which is not revoked
	ResultFailed  Result = "failed"  // nobody could be asked, or no answer could be believed
	ResultSkipped Result = "skipped" // not checked; Detail says why
)

// answer is what a responder or list says of one certificate, once it is
// believed.
type answer struct {
	result    Result
	revokedAt time.Time
	reason    int // CRLReason
	// nextUpdate is when there will be a newer answer; zero if that is not said.
	nextUpdate time.Time
}

const (
	// clockTolerance is how far an authority's clock may be ahead or behind.
	clockTolerance = 5 * time.Minute
	// undatedLife is how long an answer without nextUpdate is believed.
	undatedLife = 24 * time.Hour
	// shortLifetime is below what a certificate is not checked: it ends about as
	// soon as a revocation is heard of everywhere.
	shortLifetime = 7 * 24 * time.Hour
	// maxURLs is how many places of one kind are tried for a certificate.
	maxURLs = 3
)

// fresh checks the dates of an answer.
func fresh(thisUpdate, nextUpdate, now time.Time) error {
	switch {
	case thisUpdate.IsZero():
		return errors.New("it has no date")
	case thisUpdate.After(now.Add(clockTolerance)):
		return fmt.Errorf("it is of %s, which has not come; compare the clocks", thisUpdate.UTC().Format(time.RFC3339))
	case !nextUpdate.IsZero() && nextUpdate.Before(thisUpdate):
		return errors.New("it ends before it begins")
	case !nextUpdate.IsZero() && now.After(nextUpdate.Add(clockTolerance)):
		return fmt.Errorf("it is out of date since %s", nextUpdate.UTC().Format(time.RFC3339))
	case nextUpdate.IsZero() && now.After(thisUpdate.Add(undatedLife)):
		return fmt.Errorf("it is of %s and does not say how long it is good", thisUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

// oidNoRevAvail is id-pe-noRevAvail (RFC 9608): the authority publishes nothing
// about the certificate.
var oidNoRevAvail = asn1.ObjectIdentifier{2, 5, 29, 56}

// unchecked says why a certificate is not checked; "" if it is.
func unchecked(chain []*x509.Certificate, now time.Time) string {
	leaf := chain[0]
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidNoRevAvail) {
			return "its authority says that it publishes nothing about it (noRevAvail)"
		}
	}
	switch {
	case leaf.NotAfter.Sub(leaf.NotBefore) < shortLifetime:
		return "it lives for less than a week"
	case !now.Before(leaf.NotAfter):
		return "it has expired"
	case len(chain) < 2:
		return "the certificate of its issuer is not there"
	case len(places(leaf.OCSPServer))+len(places(leaf.CRLDistributionPoints)) == 0:
		return "it names no responder and no list that can be fetched by http"
	}
	return ""
}

// places are the URLs that can be fetched, at most maxURLs.
func places(urls []string) []string {
	list := slices.DeleteFunc(slices.Clone(urls), func(text string) bool {
		u, err := url.Parse(text)
		return err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(text) > maxURLLen
	})
	return list[:min(len(list), maxURLs)]
}

// maxURLLen bounds a URL that a certificate names.
const maxURLLen = 2048
