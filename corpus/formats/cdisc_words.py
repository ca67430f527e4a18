"""Words for CDISC: what domains and variables are called in a record, in the order in which they are written."""


def _read(table: str) -> dict[str, str]:
    """Reads "DM=Demographics; EX=Exposure"."""
    pairs = (entry.partition("=") for entry in table.replace("\n", " ").split(";"))
    return {name.strip(): words.strip() for name, _, words in pairs}


DOMAINS = _read("""
DM=Demographics; EX=Exposure; EC=Exposure as collected; CM=Concomitant medications; AE=Adverse events;
DS=Disposition; MH=Medical history; CE=Clinical events; DD=Death details; DV=Protocol deviations;
HO=Healthcare encounters; LB=Laboratory tests; VS=Vital signs; EG=Electrocardiogram; PE=Physical examination;
QS=Questionnaires; SC=Subject characteristics; PC=Drug concentrations; PP=Pharmacokinetic parameters; TU=Tumours;
TR=Tumour measurements; RS=Disease response; SU=Substance use; PR=Procedures; IE=Eligibility not met; SV=Visits;
SE=Subject elements; TA=Trial arms; TE=Trial elements; TI=Trial criteria; TV=Trial visits; TS=Trial summary;
FA=Findings about events; MB=Microbiology; IS=Immunogenicity; CO=Comments; RELREC=Related records; ADSL=Subjects;
ADAE=Adverse events; ADTTE=Time to event; ADLB=Laboratory tests; ADVS=Vital signs; ADEX=Exposure;
ADCM=Concomitant medications; ADRS=Disease response; ADEG=Electrocardiogram; ADQS=Questionnaires;
ADPC=Drug concentrations; ADMH=Medical history
""")
FACTS = _read("""
STUDYID=study; AGE=age; SEX=sex; RACE=race; ETHNIC=ethnicity; COUNTRY=country; ARM=planned arm; ACTARM=actual arm;
TRT01P=planned treatment; TRT01A=actual treatment; TRTDURD=days of treatment; EOSSTT=end of study;
DCSREAS=reason for leaving; DTHFL=died; DTHADY=day of death; DTHCAUS=cause of death; AGEGR1=age group;
RACEGR1=race group; REGION1=region; SAFFL=in safety population; ITTFL=in intention-to-treat population;
DMDY=day of collection
""")
DETAILS = _read("""
DECOD=coded as; OBJ=about; DOSTXT=dose; DOSFRM=form; DOSFRQ=frequency; ROUTE=route; INDC=for; CAT=category;
SCAT=subcategory; BODSYS=body system; SEV=severity; TOXGR=grade; SER=serious; REL=related; ACN=action taken;
OUT=outcome; OCCUR=occurred; STAT=status; REASND=reason not done; LOC=location; LAT=side; POS=position;
SPEC=specimen; METHOD=method; NRIND=against range; ANRIND=against range; BASE=baseline; CHG=change;
PCHG=change in percent; CNSR=censored; EVNTDESC=event; TRTA=treatment; TRTP=treatment; VISIT=visit; AVISIT=visit;
EPOCH=epoch
""")
