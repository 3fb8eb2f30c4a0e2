package clusterca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	scheme        = "certctl"
	nodePath      = "/node/"
	clusterIDSize = 16 // hexadecimal digits
	maxNodeID     = 64 // octets; also ub-common-name of RFC 5280, appendix A.1
)

// ErrNodeID says that a text cannot be the id of a node.
var ErrNodeID = errors.New("not the id of a node: expected 1 to 64 octets of UTF-8 without control characters")

// CheckNodeID reports whether a text can be the id of a node. It is as lenient as
// the setting always was: a node cannot change its id.
func CheckNodeID(id string) error {
	if id == "" || len(id) > maxNodeID || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return fmt.Errorf("%.80q: %w", id, ErrNodeID)
	}
	return nil
}

func checkClusterID(id string) error {
	if len(id) != clusterIDSize || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("%.80q is not the id of a cluster", id)
	}
	return nil
}

// clusterURI names a cluster in the certificates of its roots.
func clusterURI(cluster string) *url.URL { return &url.URL{Scheme: scheme, Host: cluster} }

// nodeURI names a node in its certificates. Whatever an id may hold and a URI may
// not is percent-encoded.
func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: scheme, Host: cluster, Path: nodePath + node, RawPath: nodePath + url.PathEscape(node)}
}

// parseNodeURI reads the name of a node. There is one spelling of each name, and
// any other one is refused: two texts never stand for one node.
func parseNodeURI(uri *url.URL) (cluster, node string, err error) {
	escaped, ok := strings.CutPrefix(uri.EscapedPath(), nodePath)
	if !ok {
		return "", "", errors.New("the URI is not that of a node")
	}
	if node, err = url.PathUnescape(escaped); err != nil {
		return "", "", errors.New("the URI is not that of a node")
	}
	if err := CheckNodeID(node); err != nil {
		return "", "", err
	}
	if err := checkClusterID(uri.Host); err != nil {
		return "", "", err
	}
	if uri.String() != nodeURI(uri.Host, node).String() {
		return "", "", errors.New("the URI is not in the form that certctl writes")
	}
	return uri.Host, node, nil
}

// onlyURI is the one name that a certificate has in subjectAltName.
func onlyURI(cert *x509.Certificate) (*url.URL, error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return nil, errors.New("expected one URI in subjectAltName, and no other name")
	}
	return cert.URIs[0], nil
}
