package globalsign

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
)

// FuzzParse reads anything as a failure, a policy, a place, and the state of a
// certificate. FuzzAnswers beside it has the whole connector meet such answers.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"description":"d","id":"i","errors":{"a":"quota"}}`, `{"certificate":"x","status":"ISSUED"}`, `{"certificate":"","status":"odd"}`, `/v2/certificates/0A`, `https://a/0a/`,
		`{"subject_dn":{"common_name":{"presence":"REQUIRED"},"organizational_unit":{"maxcount":1}},"public_key":{"key_format":"PKCS8"},"validity":{"secondsmax":-1,"not_before_negative_skew":-9}}`,
		`{"public_key":{"key_format":"PKCS10"},"san":{"dns_names":{"maxcount":9}},"signature":{"algorithm":{"presence":"REQUIRED","list":[]}}}`,
	} {
		f.Add([]byte(seed))
	}
	text := func() (string, error) { return "k", nil }
	g, err := New(Config{URL: URL, APIKey: text, APISecret: text, Certificate: func() (*tls.Certificate, error) { return nil, nil }})
	require.NoError(f, err)
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(f, err)
	der, err := pki.CreateCSR(key, pki.MustParseNames("www.example.com"))
	require.NoError(f, err)
	csr, err := pki.ParseCSR(der)
	require.NoError(f, err)
	r := &connector.Request{CSR: csr, CSRDER: der, Names: csr.Names, CommonName: "www.example.com", Validity: time.Hour}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, data []byte) {
		if serial := serialIn(string(data)); serial != "" {
			assert.Regexp(t, "^[0-9A-Fa-f]{1,40}$", serial)
		}
		answer := &connector.Answer{Status: 422, Body: data, Header: http.Header{"Content-Type": {"application/problem+json"}}}
		if e := g.problem(answer); e != nil {
			assert.NotEmpty(t, e.Detail)
			assert.Contains(t, []connector.Class{connector.ClassRefused, connector.ClassNeedsPerson}, e.Class)
		}
		answer.Status = http.StatusOK
		if got, err := g.read(answer, "0A"); err == nil {
			assert.NotEmpty(t, got.status.State)
			assert.LessOrEqual(t, len(got.status.Raw), 64)
			assert.False(t, got.status.State == connector.Issued && got.bundle == nil)
		}
		p := &policy{}
		if answer.Decode(p) != nil {
			return
		}
		body, err := g.body(p, r, now)
		if err != nil {
			assert.True(t, connector.Classify(err).NotPlaced)
			return
		}
		assert.LessOrEqual(t, body.Validity.NotBefore, now.Unix())
		assert.GreaterOrEqual(t, body.Validity.NotBefore, now.Unix()-300)
		assert.NotEmpty(t, body.Key)
	})
}
