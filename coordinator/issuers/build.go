package issuers

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/connector/entrust"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/coordinator/connector/vault"
	"github.com/certctl/certctl/shared/settings"
)

// builder makes the connector of one issuer.
type builder struct {
	Options
	path     string // of the kind's section
	validity time.Duration
	client   *clientCertificate // set by certificate
	secrets  []settings.Secret
}

// roots are what the API's server is verified with; nil is the system's.
func (b *builder) roots(s *config.APIServer) (*x509.CertPool, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	text, err := readFile(s.CAFile)
	if err != nil {
		return nil, &Error{b.path + ".ca_file", err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, &Error{b.path + ".ca_file", fmt.Errorf("%s holds no certificate in PEM", s.CAFile)}
	}
	return pool, nil
}

// certificate presents the client certificate, which has to be good at the start.
func (b *builder) certificate(s *config.APIClient) (present func() (*tls.Certificate, error), err error) {
	b.client = &clientCertificate{file: s.Certificate, key: s.Key, now: b.Now}
	b.secrets = append(b.secrets, s.Key)
	if _, err := b.client.load(); err != nil {
		return nil, &Error{b.path + ".client_certificate_file", err}
	}
	return b.client.present, nil
}

func (b *builder) digicert(s *config.DigiCert) (connector.Connector, error) {
	b.secrets = append(b.secrets, s.APIKey)
	c := digicertConfig(s, b.validity)
	var err error
	if c.Roots, err = b.roots(&s.APIServer); err != nil {
		return nil, err
	}
	c.Now, c.Dial = b.Now, b.Dial
	return made(digicert.New(c))
}

func digicertConfig(s *config.DigiCert, validity time.Duration) digicert.Config {
	return digicert.Config{
		URL: s.URL, Key: s.APIKey.Read, Product: s.Product, Organization: s.Organization, Validity: validity, ValidityField: s.ValidityField,
		CACertificate: s.CACertificate, SignatureHash: s.SignatureHash, PaymentMethod: s.PaymentMethod, DCVMethod: s.DCVMethod,
		SkipApproval: s.SkipApproval, LinkRenewals: s.LinkRenewals, NoReference: !s.SendReference, Format: s.Format,
		ReasonField: s.ReasonField, RevokeOrder: s.RevokeOrder, States: s.States, Visible: s.VisibleAfter, Timeout: s.Timeout,
	}
}

func (b *builder) entrust(s *config.Entrust) (connector.Connector, error) {
	c := entrustConfig(s, b.validity)
	var err error
	if c.Roots, err = b.roots(&s.APIServer); err != nil {
		return nil, err
	}
	if c.Certificate, err = b.certificate(&s.APIClient); err != nil {
		return nil, err
	}
	c.Now, c.Dial = b.Now, b.Dial
	return made(entrust.New(c))
}

func entrustConfig(s *config.Entrust, validity time.Duration) entrust.Config {
	return entrust.Config{
		URL: s.URL, CA: s.CA, Profile: s.Profile, ClientID: s.ClientID, Subject: s.Subject, Variables: s.Variables, Properties: s.Properties,
		Validity: validity, LinkRenewals: s.LinkRenewals, MayWait: s.MayWait, CAFields: s.CAFields, CertificateFields: s.CertificateFields,
		EventFields: s.EventFields, States: s.States, EnrollmentStates: s.EnrollmentStates, Visible: s.VisibleAfter,
		NeedsPersonAfter: s.NeedsPersonAfter, Timeout: s.Timeout,
	}
}

func (b *builder) globalsign(s *config.GlobalSign) (connector.Connector, error) {
	b.secrets = append(b.secrets, s.APIKey, s.APISecret)
	c := globalsignConfig(s, b.validity)
	var err error
	if c.Roots, err = b.roots(&s.APIServer); err != nil {
		return nil, err
	}
	if c.Certificate, err = b.certificate(&s.APIClient); err != nil {
		return nil, err
	}
	c.Now, c.Dial = b.Now, b.Dial
	return made(globalsign.New(c))
}

func globalsignConfig(s *config.GlobalSign, validity time.Duration) globalsign.Config {
	return globalsign.Config{
		URL: s.URL, APIKey: s.APIKey.Read, APISecret: s.APISecret.Read, Subject: s.Subject, Validity: validity, Usages: s.Usages,
		SignatureAlgorithm: s.SignatureAlgorithm, HashAlgorithm: s.HashAlgorithm, TokenLife: s.TokenLife, NeedsPerson: s.NeedsPersonWords,
		States: s.States, Visible: s.VisibleAfter, Timeout: s.Timeout,
	}
}

func (b *builder) sectigo(s *config.Sectigo) (connector.Connector, error) {
	b.secrets = append(b.secrets, s.Password, s.ClientSecret)
	c := sectigoConfig(s, b.validity)
	var err error
	if c.Roots, err = b.roots(&s.APIServer); err != nil {
		return nil, err
	}
	if c.Auth == sectigo.AuthCertificate {
		if c.Certificate, err = b.certificate(&s.APIClient); err != nil {
			return nil, err
		}
	}
	c.Now, c.Dial = b.Now, b.Dial
	return made(sectigo.New(c))
}

// sectigoURL is where the API is for most accounts, by the way of logging in.
var sectigoURL = map[string]string{
	string(sectigo.AuthPassword): sectigo.URLPassword, string(sectigo.AuthCertificate): sectigo.URLCertificate, string(sectigo.AuthOAuth): sectigo.URLOAuth,
}

func sectigoConfig(s *config.Sectigo, validity time.Duration) sectigo.Config {
	c := sectigo.Config{
		URL: cmp.Or(s.URL, sectigoURL[s.Auth]), Auth: sectigo.Auth(s.Auth), Login: s.Login, CustomerURI: s.CustomerURI, Password: s.Password.Read,
		TokenURL: s.TokenURL, ClientID: s.ClientID, ClientSecret: s.ClientSecret.Read,
		Organization: s.Organization, Profile: s.Profile, Terms: termsFor(s.Terms, validity), Comment: s.Comment, ExternalRequester: s.ExternalRequester,
		NoComments: !s.SendReference, DCVMode: s.DCVMode, DCVEmail: s.DCVEmail, Format: s.Format, FormatInPath: s.FormatInPath,
		CollectApplied: s.CollectApplied, RevokeByOrder: s.RevokeByOrder, DateFormat: s.DateFormat, States: s.States, Visible: s.VisibleAfter,
		Timeout: s.Timeout,
	}
	for _, name := range slices.Sorted(maps.Keys(s.CustomFields)) {
		c.CustomFields = append(c.CustomFields, sectigo.CustomField{Name: name, Value: s.CustomFields[name]})
	}
	return c
}

func (b *builder) vault(s *config.Vault) (connector.Connector, error) {
	b.secrets = append(b.secrets, s.Token, s.RoleID, s.SecretID)
	c := vaultConfig(s, b.validity)
	var err error
	if c.Roots, err = b.roots(&s.APIServer); err != nil {
		return nil, err
	}
	c.Now, c.Dial = b.Now, b.Dial
	return made(vault.New(c))
}

func vaultConfig(s *config.Vault, validity time.Duration) vault.Config {
	c := vault.Config{
		URL: s.URL, Namespace: s.Namespace, Mount: s.Mount, Role: s.Role, Issuer: s.Issuer, AppRoleMount: s.AppRoleMount, Validity: validity,
		PlaceOnce: s.PlaceOnce, NoStore: s.NoStore, Visible: s.VisibleAfter, Timeout: s.Timeout,
	}
	for field, secret := range map[*func() (string, error)]settings.Secret{&c.Token: s.Token, &c.RoleID: s.RoleID, &c.SecretID: s.SecretID} {
		if secret.IsSet() {
			*field = secret.Read
		}
	}
	return c
}

// termsFor has the term of a validity first, which is that of orders that do not say.
func termsFor(terms []int, validity time.Duration) []int {
	days := int(validity / (24 * time.Hour))
	if days == 0 {
		return terms
	}
	chosen := 0
	for i, term := range terms {
		best := terms[chosen]
		if term <= days && (best > days || term > best) || best > days && term < best {
			chosen = i
		}
	}
	return append([]int{terms[chosen]}, slices.Delete(slices.Clone(terms), chosen, chosen+1)...)
}

// made keeps a nil pointer from becoming a connector.
func made[C connector.Connector](c C, err error) (connector.Connector, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
