package config

import (
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

// BuiltinIssuer is the name of the built-in CA among the issuers.
const BuiltinIssuer = "builtin"

// Issuer is one account at an authority that the coordinator orders at; exactly one
// of its kinds is given.
type Issuer struct {
	DigiCert   *DigiCert   `yaml:"digicert" doc:"An account at DigiCert CertCentral (Services API v2)."`
	Entrust    *Entrust    `yaml:"entrust" doc:"A CA behind Entrust CA Gateway."`
	GlobalSign *GlobalSign `yaml:"globalsign" doc:"An account at GlobalSign Atlas (HVCA API v2)."`
	Sectigo    *Sectigo    `yaml:"sectigo" doc:"An account at Sectigo Certificate Manager (SCM REST API)."`
	Vault      *Vault      `yaml:"vault" doc:"A role of the PKI secrets engine of HashiCorp Vault or OpenBao."`

	Limits       IssuerLimits  `yaml:"limits" doc:"How much is asked of the account, by all orders together. It has to stay below what the authority allows."`
	PollMaxWait  time.Duration `yaml:"poll_max_wait" default:"0s" min:"0s" max:"365d" doc:"How long an order is asked about at the quick pace. After that it is still pending, and is asked about at the slow pace until the authority decides. 0s: what is set for the kind in the section orders, else orders.poll_max_wait_seconds."`
	Validity     time.Duration `yaml:"validity" default:"0s" min:"0s" max:"3650d" unit:"d" doc:"Validity of certificates whose order does not say. 0s leaves it to the authority; DigiCert, which has to be told, is told 90 days, and Sectigo the first of terms."`
	MaxValidity  time.Duration `yaml:"max_validity" default:"0s" min:"0s" max:"3650d" unit:"d" doc:"Longest validity that an order is given, whatever an agent asks for. 0s: as long as the agent asks for."`
	ChainFile    string        `yaml:"chain_file" default:"" doc:"PEM file, with its absolute path, of at most 10 intermediate certificates of the authority that complete a chain when it hands out too few. Read at the start. Empty: none."`
	FetchIssuers bool          `yaml:"fetch_issuers" default:"false" doc:"Fetch an intermediate certificate that is still missing from the URL that the certificate itself names (by plain http; it is verified by its signature)."`
}

// IssuerLimits bound what is asked of an account.
type IssuerLimits struct {
	Rate        float64 `yaml:"rate" default:"2" min:"0.01" max:"1000" doc:"Questions and orders a second in the long run."`
	Burst       int     `yaml:"burst" default:"1" min:"1" max:"1000" doc:"How many may follow each other at once after a quiet time."`
	Concurrency int     `yaml:"concurrency" default:"4" min:"1" max:"256" doc:"How many are under way at the same time."`
	AgentOrders int     `yaml:"agent_orders" default:"200" min:"0" max:"100000" doc:"How many orders of one agent are placed within 24 hours. More of them wait, and a person is told: orders cost money, and a host must not spend without bound. It does not hold for Vault unless place_once is set. 0: as many as agents make."`
}

// APIServer is how an authority's API is reached.
type APIServer struct {
	CAFile  string        `yaml:"ca_file" default:"" doc:"PEM file, with its absolute path, of the roots to trust for the API's own server. Read at the start. Empty: the system's roots."`
	Timeout time.Duration `yaml:"timeout" default:"30s" min:"1s" max:"2m" doc:"How long one request with its answer may take."`
}

// APIClient is the TLS certificate that an authority knows the account by.
type APIClient struct {
	Certificate string          `yaml:"client_certificate_file" default:"" doc:"PEM file, with its absolute path, of the TLS client certificate, followed by its intermediates if it has some. Read again for each connection."`
	Key         settings.Secret `yaml:"client_key" doc:"Private key of the client certificate, in PEM. Give client_key_file, which is read again for each connection."`
}

// DigiCert is an account at DigiCert CertCentral.
type DigiCert struct {
	URL           string                     `yaml:"url" default:"https://www.digicert.com/services/v2" doc:"URL of the API. Accounts in Europe have https://certcentral.digicert.eu/services/v2."`
	APIKey        settings.Secret            `yaml:"api_key" doc:"The API key. Its user's role decides what it may do."`
	Product       string                     `yaml:"product" required:"true" max:"64" example:"ssl_basic" doc:"What is ordered, by its name_id at the authority."`
	Organization  int64                      `yaml:"organization" default:"0" min:"0" doc:"Number of the organization in the certificate. 0: none, for products that validate domains only."`
	ValidityField string                     `yaml:"validity_field" default:"order_validity" oneof:"order_validity|cert_validity|both" doc:"Field of the order that the validity is written to."`
	CACertificate string                     `yaml:"ca_certificate_id" default:"" max:"64" doc:"The issuing CA to use, by its ca_cert_id at the authority. Empty: the account's."`
	SignatureHash string                     `yaml:"signature_hash" default:"sha256" oneof:"sha256|sha384|sha512" doc:"Hash of the certificate's signature."`
	PaymentMethod string                     `yaml:"payment_method" default:"" max:"64" doc:"How orders are paid: balance, card, profile or wire_transfer. Empty: as the account has it."`
	DCVMethod     string                     `yaml:"dcv_method" default:"" max:"64" doc:"How control of names is proved that are not validated yet: email, dns-txt-token, dns-cname-token or http-token. Empty: as the account has it."`
	SkipApproval  bool                       `yaml:"skip_approval" default:"false" doc:"Have orders and revocations not wait for an administrator of the account. The key has to be an administrator's."`
	LinkRenewals  bool                       `yaml:"link_renewals" default:"false" doc:"Tell the authority which order a renewal renews."`
	SendReference bool                       `yaml:"send_reference" default:"true" doc:"Put the reference of each order into alternative_order_id, by which a lost order is found. Turn it off where the account uses that field otherwise; a lost order is then found by name and key."`
	Format        string                     `yaml:"format" default:"pem_noroot" oneof:"pem_noroot|pem_all|pem_nointermediate|p7b|cer" doc:"Format in which certificates are fetched."`
	ReasonField   string                     `yaml:"revocation_reason_field" default:"revocation_reason" max:"64" doc:"What the reason of a revocation is called in a request. -: the reason is left out."`
	RevokeOrder   bool                       `yaml:"revoke_order" default:"false" doc:"Have a revocation revoke every certificate of the order, and end it."`
	States        map[string]connector.State `yaml:"states" max:"100" oneof:"pending|needs_person|issued|ended|rejected|cancelled|revoked" example:"processing=pending" doc:"What further words of the authority for an order's state mean, or other meanings of known ones."`
	VisibleAfter  time.Duration              `yaml:"visible_after" default:"2m" min:"1s" max:"24h" doc:"How long a new order may take to be found. Before one that got no answer is placed again, it is looked for once more after this."`

	APIServer `yaml:",inline"`
}

// Entrust is a CA behind Entrust CA Gateway.
type Entrust struct {
	URL               string                     `yaml:"url" required:"true" example:"https://gateway.example.com/cagw" doc:"URL of the gateway, with its context path."`
	CA                string                     `yaml:"ca" required:"true" max:"256" doc:"Id of the CA at the gateway."`
	Profile           string                     `yaml:"profile" required:"true" max:"256" doc:"Id of the profile to enrol with."`
	ClientID          string                     `yaml:"client_id" default:"" max:"256" doc:"Sent as ca-client-id, where the gateway wants one."`
	Subject           string                     `yaml:"subject" default:"" max:"512" example:"O=Example Ltd,C=GB" doc:"What follows the common name in the subject. Empty: nothing."`
	Variables         map[string]string          `yaml:"variables" max:"50" example:"cn=www" doc:"Subject variables that the profile wants."`
	Properties        map[string]string          `yaml:"properties" max:"50" example:"tracking.trackingInfo={reference}" doc:"Properties of each enrolment, for the CAs that have some. {reference} stands for the reference of the order."`
	LinkRenewals      bool                       `yaml:"link_renewals" default:"false" doc:"Tell the gateway the serial number of what is renewed, for CAs that bill by it."`
	MayWait           bool                       `yaml:"may_wait" default:"false" doc:"Set it if enrolments may wait for somebody at the CA behind the gateway. One that got no answer and is not found is then never placed again without a person."`
	CAFields          string                     `yaml:"ca_fields" default:"ca.certificate,ca.chain" max:"256" doc:"What is asked for of the CA beyond what the gateway shows by itself."`
	CertificateFields string                     `yaml:"certificate_fields" default:"certificate.certificateData,chain" max:"256" doc:"What is asked for of a certificate beyond that."`
	EventFields       string                     `yaml:"event_fields" default:"events.certificate" max:"256" doc:"What is asked for of events beyond that."`
	States            map[string]connector.State `yaml:"states" max:"100" oneof:"pending|needs_person|issued|ended|rejected|cancelled|revoked" example:"normal=issued" doc:"What further words for a certificate's state mean, or other meanings of known ones."`
	EnrollmentStates  map[string]connector.State `yaml:"enrollment_states" max:"100" oneof:"pending|needs_person|issued|ended|rejected|cancelled|revoked" example:"ON_HOLD=needs_person" doc:"The same of enrolments without a certificate."`
	VisibleAfter      time.Duration              `yaml:"visible_after" default:"15m" min:"1s" max:"24h" doc:"How long a certificate may take to be issued and to be among the gateway's events. One that takes longer may be ordered twice. Before an enrolment that got no answer is repeated, it is looked for once more after this."`
	NeedsPersonAfter  time.Duration              `yaml:"needs_person_after" default:"4h" min:"1m" max:"30d" doc:"How long an enrolment without a certificate is waited for before a person is told."`

	APIClient `yaml:",inline"`
	APIServer `yaml:",inline"`
}

// GlobalSign is an account at GlobalSign Atlas.
type GlobalSign struct {
	URL                string                     `yaml:"url" default:"https://emea.api.hvca.globalsign.com:8443/v2" doc:"URL of the API."`
	APIKey             settings.Secret            `yaml:"api_key" doc:"The API key. It belongs to the API secret and the client certificate."`
	APISecret          settings.Secret            `yaml:"api_secret" doc:"The API secret."`
	Subject            map[string]string          `yaml:"subject" max:"50" example:"organization=Example Ltd,country=GB" doc:"Further fields of the subject, by the authority's names. What the account's policy sets or forbids is left out. The common name comes from each order."`
	Usages             []string                   `yaml:"extended_key_usages" default:"1.3.6.1.5.5.7.3.1" min:"1" max:"20" doc:"Extended key usages, by OID."`
	SignatureAlgorithm string                     `yaml:"signature_algorithm" default:"" max:"64" example:"RSA" doc:"For policies that leave it to the order. Empty: the first that the policy has, where it wants one."`
	HashAlgorithm      string                     `yaml:"hash_algorithm" default:"" max:"64" example:"SHA-256" doc:"The same of the hash."`
	TokenLife          time.Duration              `yaml:"token_life" default:"10m" min:"1m" max:"24h" doc:"How long the authority takes a token that it gave at a login."`
	NeedsPersonWords   []string                   `yaml:"needs_person_words" max:"50" example:"quota" doc:"Further words by which a refusal is known to be one that somebody can mend at the authority."`
	States             map[string]connector.State `yaml:"states" max:"100" oneof:"pending|needs_person|issued|ended|rejected|cancelled|revoked" example:"ISSUED=issued" doc:"What further words of the authority for a certificate's state mean, or other meanings of known ones."`
	VisibleAfter       time.Duration              `yaml:"visible_after" default:"5m" min:"1s" max:"24h" doc:"How long a new certificate may take to be issued and listed. One that takes longer may be ordered twice. Before an order that got no answer is placed again, it is looked for once more after this."`

	APIClient `yaml:",inline"`
	APIServer `yaml:",inline"`
}

// Sectigo is an account at Sectigo Certificate Manager.
type Sectigo struct {
	URL               string                     `yaml:"url" default:"" doc:"URL of the API. Empty: https://cert-manager.com/api with a password, https://cert-manager.com/private/api with a certificate, https://admin.enterprise.sectigo.com/api with oauth2."`
	Auth              string                     `yaml:"auth" default:"password" oneof:"password|certificate|oauth2" doc:"How the account logs in."`
	Login             string                     `yaml:"login" default:"" max:"256" doc:"Login of the administrator, with a password or a certificate."`
	CustomerURI       string                     `yaml:"customer_uri" default:"" max:"256" doc:"The customer's part of the authority's URLs, with a password or a certificate."`
	Password          settings.Secret            `yaml:"password" doc:"The administrator's password, with auth: password."`
	TokenURL          string                     `yaml:"token_url" default:"https://auth.sso.sectigo.com/auth/realms/apiclients/protocol/openid-connect/token" doc:"Where access tokens are had, with auth: oauth2."`
	ClientID          string                     `yaml:"client_id" default:"" max:"256" doc:"Id of the API client, with auth: oauth2."`
	ClientSecret      settings.Secret            `yaml:"client_secret" doc:"Its secret."`
	Organization      int64                      `yaml:"organization" required:"true" min:"1" doc:"The orgId of the organization or department that orders."`
	Profile           int64                      `yaml:"profile" required:"true" min:"1" doc:"Id of the certificate profile (certType)."`
	Terms             []int                      `yaml:"terms" required:"true" min:"1" max:"50" example:"90" doc:"Those terms of the profile that may be ordered, in days. The first is for orders that do not say how long; for others it is the longest that is not longer, else the shortest."`
	Comment           string                     `yaml:"comment" default:"" max:"512" doc:"Begins the comments of each order."`
	SendReference     bool                       `yaml:"send_reference" default:"true" doc:"Put the reference of each order into its comments, by which a lost order is known. Without it, and without external_requester, a lost order can be found by a person alone."`
	ExternalRequester string                     `yaml:"external_requester" default:"" max:"480" doc:"E-mail address with {reference} in it, such as certs+{reference}@example.com: unlike comments, the authority can search for it. It may send mail there. Empty: the field is left out."`
	CustomFields      map[string]string          `yaml:"custom_fields" max:"50" example:"cost centre=1234" doc:"Custom fields of each order, by name."`
	DCVMode           string                     `yaml:"dcv_mode" default:"" max:"16" doc:"How control of names is proved that are not validated yet: CNAME, EMAIL, HTTP, HTTPS, TXT or AUTO. Empty: as the account has it."`
	DCVEmail          string                     `yaml:"dcv_email" default:"" max:"256" doc:"Address for dcv_mode: EMAIL."`
	Format            string                     `yaml:"format" default:"x509" oneof:"x509|x509R|x509CO|pem|pemco|pemia|base64|bin" doc:"Format in which certificates are fetched."`
	FormatInPath      bool                       `yaml:"format_in_path" default:"false" doc:"Ask for certificates by the older form of the URL."`
	CollectApplied    bool                       `yaml:"collect_applied" default:"false" doc:"Take an order in the state Applied for issued: at some accounts its certificate can be fetched by then."`
	RevokeByOrder     bool                       `yaml:"revoke_by_order" default:"false" doc:"Name a certificate that is to be revoked by its order and not by its serial number. After a replacement that is the newer one."`
	DateFormat        string                     `yaml:"date_format" default:"yyyy-MM-dd'T'HH:mm:ssXXX" max:"64" doc:"Format of dates that is asked for, in the authority's notation. -: none is."`
	States            map[string]connector.State `yaml:"states" max:"100" oneof:"pending|needs_person|issued|ended|rejected|cancelled|revoked" example:"Applied=pending" doc:"What further words of the authority for an order's state mean, or other meanings of known ones."`
	VisibleAfter      time.Duration              `yaml:"visible_after" default:"2m" min:"1s" max:"24h" doc:"How long a new order may take to be listed. Before one that got no answer is placed again, it is looked for once more after this."`

	APIClient `yaml:",inline"`
	APIServer `yaml:",inline"`
}

// Orders is how orders at slow authorities are followed.
type Orders struct {
	PollMaxWait           int `yaml:"poll_max_wait_seconds" env:"CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS" default:"600" min:"1" max:"31536000" doc:"For how many seconds an order is asked about at the quick pace (from 5 s to 5 min), where neither its issuer nor its issuer's kind says. After that it is still pending, and is asked about at the slow pace (from 5 min to 1 h) until the authority decides."`
	DigiCertPollMaxWait   int `yaml:"digicert_poll_max_wait_seconds" env:"CERTCTL_DIGICERT_POLL_MAX_WAIT_SECONDS" default:"0" min:"0" max:"31536000" doc:"The same for issuers of the kind digicert without a poll_max_wait of their own. 0: orders.poll_max_wait_seconds."`
	EntrustPollMaxWait    int `yaml:"entrust_poll_max_wait_seconds" env:"CERTCTL_ENTRUST_POLL_MAX_WAIT_SECONDS" default:"0" min:"0" max:"31536000" doc:"The same for the kind entrust."`
	GlobalSignPollMaxWait int `yaml:"globalsign_poll_max_wait_seconds" env:"CERTCTL_GLOBALSIGN_POLL_MAX_WAIT_SECONDS" default:"0" min:"0" max:"31536000" doc:"The same for the kind globalsign."`
	SectigoPollMaxWait    int `yaml:"sectigo_poll_max_wait_seconds" env:"CERTCTL_SECTIGO_POLL_MAX_WAIT_SECONDS" default:"0" min:"0" max:"31536000" doc:"The same for the kind sectigo."`
}

// Vault is a role of a PKI secrets engine.
type Vault struct {
	URL          string          `yaml:"url" required:"true" example:"https://vault.example.com:8200" doc:"URL of the server, without /v1."`
	Namespace    string          `yaml:"namespace" default:"" max:"256" doc:"Namespace of the mount, in servers that have some. Empty: the root namespace."`
	Mount        string          `yaml:"mount" default:"pki" max:"256" doc:"Where the secrets engine is mounted."`
	Role         string          `yaml:"role" required:"true" max:"256" doc:"The role that says what may be signed."`
	Issuer       string          `yaml:"issuer" default:"" max:"256" doc:"Name or id of the issuer that signs, if it is not the one that the role names."`
	Token        settings.Secret `yaml:"token" doc:"A token that may update mount/sign/role. Give token_file, which is read again for each request, and keep that file fresh: certctl renews no token. Give this, or role_id and secret_id."`
	RoleID       settings.Secret `yaml:"role_id" doc:"Role id of AppRole, with which a token is had when one is needed."`
	SecretID     settings.Secret `yaml:"secret_id" doc:"The secret id that goes with it."`
	AppRoleMount string          `yaml:"approle_mount" default:"approle" max:"256" doc:"Where AppRole is mounted."`
	PlaceOnce    bool            `yaml:"place_once" default:"false" doc:"Set it where each signature costs something. An order that got no answer is then looked for among the certificates of the mount; without it, another certificate is signed, and the one that was lost is in nobody's hands."`
	NoStore      bool            `yaml:"no_store" default:"false" doc:"Set it if the role keeps no certificates (no_store). They cannot be looked for then, nor revoked by certctl."`
	VisibleAfter time.Duration   `yaml:"visible_after" default:"1m" min:"1s" max:"24h" doc:"How long a certificate may take to be listed, with place_once."`

	APIServer `yaml:",inline"`
}
