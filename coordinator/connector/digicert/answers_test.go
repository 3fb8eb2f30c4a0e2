package digicert

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// FuzzParse reads anything as an answer of every kind: what comes of it is sound, or
// an Error. FuzzAnswers beside it has the whole connector meet such answers.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"requests":[{"id":2,"status":"approved"}],"certificate_id":3,"certificate_chain":[{"pem":"-----BEGIN CERTIFICATE-----"}]}`,
		`{"id":"1","status":"pending","certificate":{"id":4},"domains":[{"id":9,"name":"a","dcv_token":{"token":"t","status":"pending"}}]}`,
		`{"orders":[{"order_id":1,"certificate_id":2,"status":"Issued","date_created":"2027-01-02"}]}`,
		`{"errors":[{"code":"not_found|order","message":"c"},{}]}`, `{"errors":{"message":"m"}}`, `null`, ``,
	} {
		f.Add(200, []byte(seed))
	}
	d, err := New(Config{URL: URLAmerica, Key: func() (string, error) { return "k", nil }, Product: "ssl_basic"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, status int, data []byte) {
		answer := &connector.Answer{Status: status, Body: data}
		if e := problem(answer); e != nil {
			assert.True(t, e.Code != "" || e.Detail != "", "a failure of which nothing is known is none of the authority's")
		}
		sound := func(s *connector.Status) {
			assert.NotEmpty(t, s.State)
			assert.Regexp(t, "^[0-9]+$", s.Handle.Order)
			for _, text := range []string{s.Handle.Certificate, s.Handle.Request} {
				assert.Regexp(t, "^[0-9]*$", text)
			}
			assert.LessOrEqual(t, len(s.Raw), 64)
			assert.LessOrEqual(t, len(s.Detail), 512)
			assert.Equal(t, s.Bundle != nil, s.Bundle != nil && s.State == connector.Issued)
		}
		if s, err := d.placed(answer); err == nil {
			sound(s)
		} else {
			assert.False(t, connector.Classify(err).NotPlaced)
		}
		list, err := d.listed(answer)
		if err == nil {
			for i := range list {
				sound(&list[i])
			}
		}
	})
}
