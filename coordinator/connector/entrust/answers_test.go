package entrust

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// FuzzParse reads anything as a failure, an enrollment and a certificate. FuzzAnswers
// beside it has the whole connector meet such answers.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"enrollment":{"id":"e","status":"ACCEPTED","serialNumber":"0A","body":"MAA=","chain":["x"]}}`, `{"enrollment":{"id":"","body":""},"message":{"message":"m"}}`,
		`{"certificate":{"status":"normal","certificateData":"MAA="},"chain":[]}`, `{"certificate":{"revocationInfo":{}}}`, `{"error":{"code":"cagw-4018","message":"quota"}}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	e, err := New(Config{URL: "https://gateway.example/cagw", CA: "c", Profile: "p", Certificate: func() (*tls.Certificate, error) { return nil, nil }})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := &connector.Answer{Status: 200, Body: data}
		if failed := problem(answer); failed != nil {
			assert.NotEmpty(t, failed.Code+failed.Detail)
		}
		if status, err := e.enrolled(answer); err == nil {
			assert.NotEmpty(t, status.State)
			assert.False(t, status.Handle.IsZero())
			assert.Equal(t, status.Bundle != nil, status.State == connector.Issued)
		}
		if s, err := e.certificate(answer, "0A"); err == nil {
			assert.NotEmpty(t, s.status.State)
			assert.LessOrEqual(t, len(s.status.Raw), 64)
		}
	})
}

// The gateway itself waits for about a minute.
func TestAnEnrollmentIsWaitedForLongerThanTheGatewayTakes(t *testing.T) {
	assert.GreaterOrEqual(t, placeTime, 120*time.Second)
	assert.Equal(t, "PT25H", period(25*time.Hour))
}
